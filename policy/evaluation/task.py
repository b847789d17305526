"""What an evaluation is made of: a task is a cursor with the text that belongs there.

Wherever tasks come from, a dataset's file or the user's own code, they end up here, with the repository that retrieval
may read. What could not become a task becomes a `Problem`, which is counted and reported: a silent drop would flatter
the figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from indexer.model import Chunk, Cursor
from policy.errors import RepoformerError

TaskKind = Literal["line", "api", "cursor", "chunk", "function", "quiet"]
KINDS: tuple[TaskKind, ...] = get_args(TaskKind)
# Most tokens of a generation (paper, section 5.1).
TOKENS: Mapping[TaskKind, int] = {"line": 50, "api": 50, "cursor": 50, "chunk": 50, "function": 256, "quiet": 50}


class EvaluationError(RepoformerError):
    """The evaluation cannot be run, or not be gone on with, as it was asked for."""


@dataclass(frozen=True, slots=True)
class Task:
    """A blank: `truth` stands where `cursor` is. It is empty where nothing is to be suggested (the kind "quiet").

    `cursor.path` is absolute where the file exists. `repository` names what retrieval may read (a key of
    `Data.repositories`), `path` the file in it. `given` are chunks that the dataset brought along, best first.
    """

    id: str
    kind: TaskKind
    repository: str
    path: str
    cursor: Cursor
    truth: str
    variant: str = ""
    given: tuple[Chunk, ...] | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """An item that could not be evaluated, and why."""

    item: str
    reason: str


@dataclass(frozen=True, slots=True)
class Data:
    """Tasks, the files of their repositories (name → root and {path: text}), and what could not be used."""

    name: str
    tasks: tuple[Task, ...]
    repositories: Mapping[str, Repository]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Repository:
    """Sources by POSIX path relative to `root`, an absolute folder."""

    root: str
    files: Mapping[str, str]


def unique(tasks: Iterable[Task]) -> tuple[list[Task], list[Problem]]:
    """The first task of each id; the others are problems."""
    kept: dict[str, Task] = {}
    problems: list[Problem] = []
    for task in tasks:
        if task.id in kept:
            problems.append(Problem(task.id, "the id occurs more than once; the first one counts"))
        else:
            kept[task.id] = task
    return list(kept.values()), problems


def spread(tasks: Sequence[Task], limit: int) -> list[Task]:
    """At most `limit` tasks (0: all), taken from each repository and kind in turn, in their order there."""
    if not limit or limit >= len(tasks):
        return list(tasks)
    groups: dict[tuple[str, str], list[Task]] = {}
    for task in tasks:
        groups.setdefault((task.repository, task.kind), []).append(task)
    taken: list[Task] = []
    rounds = 0
    while len(taken) < limit:
        taken += [group[rounds] for group in groups.values() if rounds < len(group)]
        rounds += 1
    chosen = {task.id for task in taken[:limit]}
    return [task for task in tasks if task.id in chosen]
