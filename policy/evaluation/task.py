"""The tasks of an evaluation. A task is a cursor in a file, with the text that was removed there.

Data sets and the user's own code are converted to tasks, together with the repositories that retrieval may read. An
item that cannot become a task becomes a `Problem`, which is counted and reported, because ignoring the item silently
would bias the figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from indexer.model import Chunk, Cursor
from policy.errors import RepoformerError

TaskKind = Literal["line", "api", "cursor", "chunk", "function", "quiet"]
KINDS: tuple[TaskKind, ...] = get_args(TaskKind)
# Maximum number of tokens of a generation, by the kind of the blank (paper, section 5.1).
TOKENS: Mapping[TaskKind, int] = {"line": 50, "api": 50, "cursor": 50, "chunk": 50, "function": 256, "quiet": 50}


class EvaluationError(RepoformerError):
    """The evaluation cannot run or resume with these arguments."""


@dataclass(frozen=True, slots=True)
class Task:
    """A blank: a cursor, and the text that was removed there (`truth`). The truth of the kind "quiet" is empty.

    `cursor.path` is absolute if the file exists. `repository` is the repository that retrieval may read, as a key of
    `Data.repositories`, and `path` is the file's path in this repository. `variant` is a subdivision of the kind.
    `given` has the retrieved chunks that the data set contains, best first, or None if the index is searched instead.
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
    """An item that could not be evaluated, and the reason."""

    item: str
    reason: str


@dataclass(frozen=True, slots=True)
class Data:
    """Tasks, their repositories by name, and the items that could not become tasks."""

    name: str
    tasks: tuple[Task, ...]
    repositories: Mapping[str, Repository]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository: its source texts (`files`) by POSIX path relative to `root`, an absolute folder."""

    root: str
    files: Mapping[str, str]


def unique(tasks: Iterable[Task]) -> tuple[list[Task], list[Problem]]:
    """Return the first task of each id, and a problem for each other task."""
    kept: dict[str, Task] = {}
    problems: list[Problem] = []
    for task in tasks:
        if task.id in kept:
            problems.append(Problem(task.id, "the id occurs more than once; only the first one counts"))
        else:
            kept[task.id] = task
    return list(kept.values()), problems


def spread(tasks: Sequence[Task], limit: int) -> list[Task]:
    """Select at most `limit` tasks (0: all), as equally by repository and kind as possible, and keep their order."""
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
