"""Draw blanks from any folder of repositories with RepoEval's method.

So figures can be computed from current code, and not only from an old data set. `policy.training.blanks`, which draws
the training blanks, also draws the line, cursor, chunk and function blanks here. API blanks are RepoEval's second task:
a statement that calls a function or class of another file of the repository. `quiet.py` draws quiet places.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from indexer.chunking import chunk
from indexer.languages import language_of
from policy.training import blanks

from . import sources
from .quiet import quiet_spans
from .task import KINDS, Data, EvaluationError, Problem, Repository, Task, TaskKind, unique

MAX_CALL_LINES = 8
_CALL = re.compile(r"(?<![\w.])(?:\w+\.)*(\w{3,})\(")
_DEFINITION = re.compile(r"\s*(?:async\s+|export\s+|public\s+|private\s+|static\s+)*(?:def|fn|func|function|class)\b")
_TESTS = re.compile(r"(^|/)(tests?|testing|__tests__|spec)(/|$)|(^|/)(test_|conftest)|[._]test\.|_test\.|\.spec\.")


def load(repos: Path, wanted: int, kinds: Sequence[TaskKind] = KINDS, seed: int = 0) -> Data:
    """Draw about `wanted` blanks from a folder of repositories, as equally by kind and repository as possible.

    Raises `EvaluationError` if no blank can be drawn.
    """
    if not repos.is_dir():
        raise EvaluationError(f"{repos} is not a folder")
    found: dict[str, Repository] = {}
    problems: list[Problem] = []
    for folder in sources.folders(repos):
        found[folder.name], more = sources.load(folder)
        problems.extend(more)
        if not found[folder.name].files:
            problems.append(Problem(folder.name, "no readable source file in it"))
            del found[folder.name]
    return _drawn(f"resample {repos.name}", found, problems, wanted, kinds, seed)


def workspace(folder: Path, wanted: int, kinds: Sequence[TaskKind] = KINDS, seed: int = 0) -> Data:
    """Draw blanks from one repository, the user's own. Raises `EvaluationError` if no blank can be drawn."""
    if not folder.is_dir():
        raise EvaluationError(f"{folder} is not a folder")
    repository, problems = sources.load(folder)
    name = folder.resolve().name
    return _drawn(f"workspace {name}", {name: repository}, problems, wanted, kinds, seed)


def _drawn(
    name: str,
    repositories: Mapping[str, Repository],
    problems: list[Problem],
    wanted: int,
    kinds: Sequence[TaskKind],
    seed: int,
) -> Data:
    each = max(1, -(-wanted // max(1, len(repositories) * len(kinds))))
    tasks: list[Task] = []
    for repository, files in repositories.items():
        drawn = draw(repository, files, each, kinds, seed)
        if not drawn:
            problems.append(Problem(repository, "too little code to draw blanks from"))
        tasks += drawn
    if not tasks:
        raise EvaluationError("no blanks could be drawn: there is too little source code")
    kept, doubles = unique(tasks)
    random.Random(seed).shuffle(kept)
    return Data(name, tuple(kept[:wanted]), repositories, (*problems, *doubles))


def draw(name: str, repository: Repository, each: int, kinds: Sequence[TaskKind], seed: int) -> list[Task]:
    """Draw up to `each` blanks of every kind from one repository. Test files have no blanks but can be retrieved."""
    files = {path: text for path, text in repository.files.items() if not _TESTS.search(path)}
    if not files:
        return []
    rng = random.Random(f"{seed} {name}")
    # `draw_spans` splits the total among the kinds by fixed shares. With this total, even the kind with the smallest
    # share gets `each` spans. The other kinds get more than `each` spans, and the surplus is not used.
    total = round(each / min(blanks.SHARES.values()))
    spans: list[tuple[str, TaskKind, str, int, int]] = list(blanks.draw_spans(files, total, rng))
    if "api" in kinds:
        spans += api_spans(files, repository.files, each, rng)
    if "quiet" in kinds:
        spans += quiet_spans(files, each, random.Random(f"{seed} {name} quiet"))
    rng.shuffle(spans)
    tasks: list[Task] = []
    for kind in kinds:
        chosen = [span for span in spans if span[1] == kind and (span[4] > span[3] or kind == "quiet")][:each]
        for path, _, variant, start, end in sorted(chosen):
            text = files[path]
            cursor = sources.cursor_in(repository, path, text[:start], text[end:])
            task_id = f"{name}/{path}:{start}-{end}"
            tasks.append(Task(task_id, kind, name, path, cursor, text[start:end], variant))
    # The same span can be drawn as two kinds. Keep the task of the first kind.
    return list({task.id: task for task in reversed(tasks)}.values())[::-1]


def api_spans(
    files: Mapping[str, str], all_files: Mapping[str, str], wanted: int, rng: random.Random
) -> list[tuple[str, TaskKind, str, int, int]]:
    """Return the spans of statements that call a function or class of another file.

    A span is (path, kind, called name, start, end), in characters. It begins at the first word of the statement and
    ends with the line that closes the call's bracket.
    """
    defined = _definitions(all_files)
    paths = list(files)
    rng.shuffle(paths)
    spans: list[tuple[str, TaskKind, str, int, int]] = []
    for path in paths:
        found = list(_calls(path, files[path], defined))
        spans += rng.sample(found, min(len(found), max(1, wanted // 3)))
        if len(spans) >= wanted:
            break
    return spans[:wanted]


def _calls(path: str, text: str, defined: Mapping[str, set[str]]) -> Iterator[tuple[str, TaskKind, str, int, int]]:
    suffix = PurePosixPath(path).suffix
    last = -1
    for match in _CALL.finditer(text):
        places = defined.get(f"{suffix} {match[1]}", set())
        line = text.rfind("\n", 0, match.start()) + 1
        if line <= last or not places or path in places:
            continue
        first = text[line : text.find("\n", match.end()) if "\n" in text[match.end() :] else len(text)]
        if _DEFINITION.match(first) or first.lstrip().startswith(("#", "//", "*", '"', "'", "@", "import ", "from ")):
            continue
        end = _end_of_call(text, match.end())
        if end is not None and text.count("\n", line, end) < MAX_CALL_LINES:
            last = end
            yield path, "api", match[1], line + len(first) - len(first.lstrip()), end


def _end_of_call(text: str, at: int) -> int | None:
    """Return the offset of the end of the line that closes a call. `at` is the offset after its opening bracket.

    Return None if the bracket is not closed within 1,200 characters.
    """
    depth = 1
    for position in range(at, min(len(text), at + 1200)):
        depth += (text[position] in "([{") - (text[position] in ")]}")
        if depth == 0:
            end = text.find("\n", position)
            return len(text) if end < 0 else end
    return None


def _definitions(files: Mapping[str, str]) -> dict[str, set[str]]:
    """Return the paths of the files that define a name. A key is a file ending and a name, such as ".py area".

    Names that more than three files define are omitted.
    """
    found: dict[str, set[str]] = {}
    for path, text in files.items():
        suffix = PurePosixPath(path).suffix
        for piece in chunk(text, language_of(path), root="/", path=path):
            for symbol in piece.symbols:
                found.setdefault(f"{suffix} {symbol}", set()).add(path)
    return {name: paths for name, paths in found.items() if len(paths) <= 3}
