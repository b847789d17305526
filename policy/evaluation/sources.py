"""Read a repository for an evaluation: exactly the files that the index would contain.

The language server applies the same rules. So an evaluation in a folder measures what the server does in that folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from indexer.languages import language_of
from indexer.model import Cursor
from indexer.reading import decode, read
from indexer.rules import Reason, Rules
from indexer.settings import IndexSettings

from .task import Problem, Repository


def load(folder: Path) -> tuple[Repository, list[Problem]]:
    """Read the sources in a folder as the index does. A file that cannot be read becomes a problem."""
    settings = IndexSettings()
    problems: list[Problem] = []
    files: dict[str, str] = {}
    root = folder.resolve()
    for entry in Rules(root, settings).walk(lambda reason: problems.append(Problem(str(folder), str(reason)))):
        if language_of(entry.path) is None:
            continue
        data = read(root / entry.path, settings.max_file_bytes)
        text = data if isinstance(data, Reason) else decode(data)
        if isinstance(text, Reason):
            if text.rule in {"unreadable", "missing"}:
                problems.append(Problem(str(folder / entry.path), str(text)))
            continue
        files[entry.path] = text
    return Repository(str(root), files), problems


def folders(parent: Path) -> Iterator[Path]:
    """Return the folders of the repositories in `parent`, sorted by name. Hidden folders are omitted."""
    return (path for path in sorted(parent.iterdir()) if path.is_dir() and not path.name.startswith("."))


def cursor_in(repository: Repository, path: str, prefix: str, suffix: str) -> Cursor:
    """Return a cursor in the file `path` of a repository, between `prefix` and `suffix`."""
    language = language_of(path)
    return Cursor(str(Path(repository.root, path)), prefix, suffix, language.id if language else "")
