"""Read RepoEval (RepoCoder, EMNLP 2023) in the format that RepoCoder publishes: line, API and function completion.

A row has the text before the blank (`prompt`) and the truth. The text after the blank comes from the repository's
source, which is therefore required. The position of the blank comes from `line_no` (zero-based) or, in function rows,
from `lineno`, the line of the signature. A row is used only if its prompt and its truth match the source at this
position.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import sources
from .jsonl import BadRow, rows, text_of
from .task import KINDS, Data, EvaluationError, Problem, Repository, Task, TaskKind, unique

FUNCTION_SEARCH_LINES = 80  # maximum number of lines of parameters and docstring between a signature and its body
LINE_SEARCH_LINES = 1  # maximum error of a line number: some published files count lines from 0, others from 1


def load(file: Path, repos: Path, kind: TaskKind | None = None) -> Data:
    """Read the tasks of a RepoEval file whose repositories are in `repos`.

    `kind` overrides the kind in the file's name. Raises `EvaluationError` if the file or the folder does not exist.
    """
    if not repos.is_dir():
        raise EvaluationError(f"{repos} is not a folder: set --repos to the folder with RepoEval's repositories")
    problems: list[Problem] = []
    repositories: dict[str, Repository] = {}
    tasks: list[Task] = []
    for location, row in rows(file, problems):
        try:
            tasks.append(_task(row, location, repos, repositories, problems, kind or _kind_by_name(file)))
        except BadRow as error:
            problems.append(Problem(error.item or location, str(error)))
    kept, doubles = unique(tasks)
    return Data(file.stem, tuple(kept), repositories, (*problems, *doubles))


def _task(
    row: Mapping[str, Any],
    item: str,
    repos: Path,
    repositories: dict[str, Repository],
    problems: list[Problem],
    kind: TaskKind | None,
) -> Task:
    metadata = row.get("metadata")
    if not isinstance(metadata, dict):
        raise BadRow("the row has no `metadata`")
    name = text_of(metadata, "task_id")
    prompt, truth = text_of(row, "prompt", name), text_of(metadata, "ground_truth", name)
    place = metadata.get("fpath_tuple")
    if not isinstance(place, list) or len(place) < 2 or not all(isinstance(part, str) for part in place):
        raise BadRow("`fpath_tuple` is not a list of the repository and the path in it", name)
    repository, path = place[0], "/".join(place[1:])
    if repository not in repositories:
        folder = repos / repository
        if not folder.is_dir() or folder.resolve().parent != repos.resolve():
            raise BadRow(f"the repository {repository} is not in {repos}", name)
        repositories[repository], found = sources.load(folder)
        problems.extend(found)
    source = repositories[repository].files.get(path)
    if source is None:
        raise BadRow(f"{path} is not among the sources of {repository}", name)
    # Only files that this project writes have the key `kind`.
    kind = metadata["kind"] if metadata.get("kind") in KINDS else kind
    function = "function_name" in metadata or kind == "function"
    line = metadata.get("line_no", metadata.get("lineno"))
    if not isinstance(line, int) or isinstance(line, bool):
        raise BadRow("the row has neither `line_no` nor `lineno`", name)
    prompt, truth = prompt.replace("\r\n", "\n"), truth.replace("\r\n", "\n")
    end = _end_of_blank(source, prompt, truth, line, FUNCTION_SEARCH_LINES if function else LINE_SEARCH_LINES)
    if end is None:
        raise BadRow(f"line {line} of {path} does not match the prompt and the truth", name)
    cursor = sources.cursor_in(repositories[repository], path, prompt, source[end:])
    return Task(name, "function" if function else kind or "line", repository, path, cursor, truth)


def _end_of_blank(source: str, prompt: str, truth: str, line: int, search_lines: int) -> int | None:
    """Return the offset in `source` at which the truth ends, or None if prompt and truth do not match near `line`."""
    lines = source.split("\n")
    last = next((row.strip() for row in reversed(prompt.split("\n")) if row.strip()), "")
    wanted = [row.rstrip() for row in truth.rstrip("\n").split("\n")]
    within = prompt[prompt.rfind("\n") + 1 :]  # text before the blank on the same line
    for row in sorted(range(line - LINE_SEARCH_LINES, line + search_lines + 1), key=lambda row: abs(row - line)):
        if row < 0 or row + len(wanted) > len(lines):
            continue
        found = [each.rstrip() for each in lines[row : row + len(wanted)]]
        before = next((each.strip() for each in reversed(lines[:row]) if each.strip()), "")
        whole = [within + wanted[0], *wanted[1:]]
        tail = found[-1]
        if found[:-1] == whole[:-1] and tail.startswith(whole[-1]) and (before == last or within.strip()):
            return sum(len(each) + 1 for each in lines[: row + len(wanted) - 1]) + len(whole[-1])
    return None


def _kind_by_name(file: Path) -> TaskKind | None:
    """Return the kind in a file name such as `api_level_completion_….jsonl`, or None if the name states no kind."""
    kinds: tuple[TaskKind, ...] = ("line", "api", "function")
    return next((kind for kind in kinds if file.name.startswith(kind)), None)
