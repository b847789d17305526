"""One workspace folder on disk: its rules and its saved index."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.document import DamagedRecord, Extract
from indexer.ignore_files import IGNORE_FILES
from indexer.rules import Entry, Reason, Rules
from indexer.settings import IndexSettings
from indexer.store import Store
from indexer.worker import Outcome


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """A file as it was when the index was saved. `extract` is None if the file was left out because of its content."""

    entry: Entry
    digest: bytes
    extract: Extract | None


class Folder:
    """The rules of a folder, and its store if there is a cache.

    Except for `interrupt`, the methods from `load` to `close` run on the index's disk thread.
    """

    def __init__(self, root: Path, settings: IndexSettings, cache_dir: Path | None) -> None:
        self.root = root
        self.rules = Rules(root, settings)
        self._settings = settings
        self._cache_dir = cache_dir
        self._store: Store | None = None

    @property
    def store_file(self) -> str:
        """Path of the saved index, which the workers read; "" if there is none."""
        store = self._store
        return "" if store is None else str(store.file)

    def is_rule(self, path: str) -> bool:
        """Return whether a change of this file changes which files are indexed.

        `.git` is such a file if it belongs to a linked worktree or a submodule, or if it is new or was deleted. In
        other cases it is a directory, which changes often.
        """
        directory, _, name = path.rpartition("/")
        if name == ".git":
            return os.path.isfile(self.root / path) or not self.rules.knows_repository(directory)  # noqa: PTH113
        return name in (*IGNORE_FILES, ".gitmodules") or f"/{path}".endswith("/.git/info/exclude")

    def reload_rules(self) -> None:
        """Read the ignore files again."""
        self.rules = self.rules.renewed()

    def load(self) -> list[LoadedFile]:
        """Open the store and return the files in it."""
        if self._cache_dir is None:
            return []
        self._store = Store(
            self._cache_dir, str(self.root), self._settings.chunking, max_bytes=self._settings.cache_bytes
        )
        return [
            loaded
            for saved in self._store.load()
            if (loaded := self._loaded(saved.path, saved.mtime_ns, saved.size, saved.digest, saved.record))
        ]

    def scan(
        self, inner: tuple[str, ...], on_directory: Callable[[str], None], stopped: Callable[[], bool]
    ) -> tuple[list[Entry], list[Reason]]:
        """Return the files that belong in the index, and the problems met while listing them.

        `inner` has the workspace folders inside this one, as prefixes of relative paths ("pkg/"); files in them are
        skipped. For the other arguments see `Rules.walk`.

        A scan reads the ignore files again, because not every change of them causes an event, for instance when a
        directory is replaced.
        """
        self.reload_rules()
        problems: list[Reason] = []
        walk = self.rules.walk(problems.append, on_directory=on_directory, stopped=stopped)
        entries = [entry for entry in walk if not entry.path.startswith(inner)]
        return entries, problems

    def save(self, outcomes: Sequence[Outcome]) -> None:
        """Save the workers' results."""
        if self._store is not None:
            self._store.save(outcomes)

    def forget(self, paths: Sequence[str]) -> None:
        """Delete files from the saved index."""
        if self._store is not None:
            self._store.forget(paths)

    def compact(self) -> None:
        """Delete saved content that no file uses."""
        if self._store is not None:
            self._store.compact()

    def interrupt(self) -> None:
        """Interrupt a long operation of the store. Any thread may call this."""
        if (store := self._store) is not None:
            store.interrupt()

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def _loaded(self, path: str, mtime_ns: int, size: int, digest: bytes, record: bytes) -> LoadedFile | None:
        try:
            extract = Extract.from_bytes(str(self.root), path, record) if record else None
        except DamagedRecord:
            return None  # without its record, the file is read again
        return LoadedFile(Entry(path, mtime_ns, size), digest, extract)
