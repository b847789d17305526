"""CrossCodeEval (NeurIPS 2023) and CrossCodeLongEval (Repoformer): both contexts, the truth, and retrieved chunks.

These files need no sources: `crossfile_context.list` brings chunks along, which are then what retrieval would have
found. With a folder of repositories, named as `metadata.repository` names them, our own retrieval takes their place.
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
    """The tasks of a file, all of one `kind`. Raises `EvaluationError` where it cannot be read."""
    problems: list[Problem] = []
    repositories: dict[str, Repository] = {}
    tasks: list[Task] = []
    for item, row in rows(file, problems):
        try:
            tasks.append(_task(row, repos, repositories, problems, kind))
        except BadRow as bad:
            problems.append(Problem(bad.item or item, str(bad)))
    kept, doubles = unique(tasks)
    return Data(file.stem, tuple(kept), repositories, (*problems, *doubles))


def kind_by_name(file: Path) -> TaskKind:
    """CrossCodeLongEval's two files say in their names what they hold; everything else is lines."""
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
        raise BadRow("it has no `metadata`")
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
    """The chunks of `crossfile_context.list`, best first. A row without that field had nothing to retrieve."""
    if context is None or context == "":
        return ()
    listed = context.get("list") if isinstance(context, dict) else None
    if not isinstance(listed, list):
        raise BadRow("`crossfile_context` has no `list`", name)
    chunks = []
    for each in listed:
        if not isinstance(each, dict):
            raise BadRow("`crossfile_context.list` holds something that is no object", name)
        text, path = text_of(each, "retrieved_chunk", name), text_of(each, "filename", name)
        chunks.append(Chunk(f"/{repository}", path, 1, text.count("\n") + 1, text, "window"))
    return tuple(chunks)
