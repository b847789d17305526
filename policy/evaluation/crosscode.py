"""Read CrossCodeEval (NeurIPS 2023) and CrossCodeLongEval (Repoformer): contexts, truths, and retrieved chunks.

The repositories themselves are not needed, because `crossfile_context.list` contains the retrieved chunks. With a
folder of repositories, named as in `metadata.repository`, the index searches these repositories instead, and its hits
replace the chunks of the data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from indexer.model import Chunk

from . import sources
from .jsonl import BadRow, rows, text_of
from .task import Data, Problem, Repository, Task, TaskKind, unique


def load(file: Path, repos: Path | None = None, kind: TaskKind = "line") -> Data:
    """Read the tasks of a file, all of one `kind`. Raises `EvaluationError` if the file cannot be read."""
    problems: list[Problem] = []
    repositories: dict[str, Repository] = {}
    tasks: list[Task] = []
    for location, row in rows(file, problems):
        try:
            tasks.append(_task(row, repos, repositories, problems, kind))
        except BadRow as error:
            problems.append(Problem(error.item or location, str(error)))
    kept, doubles = unique(tasks)
    return Data(file.stem, tuple(kept), repositories, (*problems, *doubles))


def kind_by_name(file: Path) -> TaskKind:
    """Return the kind of a file's blanks, which follows from the file's name.

    CrossCodeLongEval has a file with chunk blanks and a file with function blanks. All other files have line blanks.
    """
    name = file.name.lower()
    return "function" if "function" in name else "chunk" if "chunk" in name else "line"


def _task(
    row: Mapping[str, Any],
    repos: Path | None,
    repositories: dict[str, Repository],
    problems: list[Problem],
    kind: TaskKind,
) -> Task:
    metadata = row.get("metadata")
    if not isinstance(metadata, dict):
        raise BadRow("the row has no `metadata`")
    name = text_of(metadata, "task_id")
    repository, path = text_of(metadata, "repository", name), text_of(metadata, "file", name)
    prefix, suffix = text_of(row, "prompt", name), text_of(row, "right_context", name)
    truth = text_of(row, "groundtruth", name)
    if repository not in repositories:
        repositories[repository] = Repository(f"/{repository}", {})
        if repos is not None:
            folder = repos / repository
            if not folder.is_dir() or not folder.resolve().is_relative_to(repos.resolve()):
                del repositories[repository]
                raise BadRow(f"the repository {repository} is not in {repos}", name)
            repositories[repository], found = sources.load(folder)
            problems.extend(found)
    given = None if repos is not None else _chunks(row.get("crossfile_context"), repository, name)
    cursor = sources.cursor_in(repositories[repository], path, prefix, suffix)
    return Task(name, kind, repository, path, cursor, truth, given=given)


def _chunks(context: object, repository: str, name: str) -> tuple[Chunk, ...]:
    """Return the chunks of `crossfile_context.list`, best first, or () for a row without `crossfile_context`.

    Raises `BadRow` if the list or a chunk is invalid.
    """
    if context is None or context == "":
        return ()
    listed = context.get("list") if isinstance(context, dict) else None
    if not isinstance(listed, list):
        raise BadRow("`crossfile_context` has no `list`", name)
    chunks = []
    for each in listed:
        if not isinstance(each, dict):
            raise BadRow("`crossfile_context.list` contains an item that is not an object", name)
        text, path = text_of(each, "retrieved_chunk", name), text_of(each, "filename", name)
        chunks.append(Chunk(f"/{repository}", path, 1, text.count("\n") + 1, text, "window"))
    return tuple(chunks)
