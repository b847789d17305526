"""Repositories as evaluation reads them: the files that the index would take, by the index's own rules.

The same rules decide what a user's editor retrieves from; what a figure says about a folder is then what the server
would do there.
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
    """The sources in a folder, read as the index reads them. A file that cannot be read is a problem."""
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
        files[entry.path] = text.replace("\r\n", "\n")
    return Repository(str(root), files), problems


def folders(parent: Path) -> Iterator[Path]:
    """The repositories in a folder of repositories, by name."""
    return (path for path in sorted(parent.iterdir()) if path.is_dir() and not path.name.startswith("."))


def cursor_in(repository: Repository, path: str, prefix: str, suffix: str) -> Cursor:
    """A cursor in a file of a repository."""
    language = language_of(path)
    return Cursor(str(Path(repository.root, path)), prefix, suffix, language.id if language else "")
