"""Debounce changed paths without timers.

Editors write a file in several steps, so a changed path is processed after a short quiet time. Many changes at once (a
branch switch, an installation) are processed together after a longer quiet time. Callers pass the current time, so
tests need no clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Set
from pathlib import Path

from indexer.locations import FileKey

QUIET = 0.02  # seconds without a further change before a small number of files is processed
LATEST = 0.10  # seconds from the first change until the files are processed, even if changes continue
MANY = 100  # if at least this many paths have changed, MANY_QUIET and MANY_LATEST replace QUIET and LATEST
MANY_QUIET, MANY_LATEST = 0.25, 3.0


class Debouncer:
    """Collects changed paths until they are due for processing."""

    def __init__(self, quiet: float = QUIET, latest: float = LATEST) -> None:
        self._quiet, self._latest = quiet, latest
        self._paths: dict[str, None] = {}
        self._first = self._last = 0.0

    def __bool__(self) -> bool:
        return bool(self._paths)

    def add(self, path: str, now: float) -> None:
        """Add a path that changed at the time `now` (seconds of a monotonic clock)."""
        if not self._paths:
            self._first = now
        self._last = now
        self._paths[path] = None

    def due(self) -> float:
        """Return the time at which the collected paths are due, or infinity if there are none."""
        if not self._paths:
            return float("inf")
        many = len(self._paths) >= MANY
        quiet, latest = (MANY_QUIET, MANY_LATEST) if many else (self._quiet, self._latest)
        return min(self._last + quiet, self._first + latest)

    def take(self, now: float) -> list[str]:
        """Remove and return the paths, oldest first, if they are due. Otherwise return an empty list."""
        if now < self.due():
            return []
        paths, self._paths = list(self._paths), {}
        return paths


def files_in_deleted(paths: Set[str], keys: Collection[FileKey]) -> list[FileKey]:
    """Return the files among `keys` that were in a deleted directory, at any depth.

    `paths` are the deleted paths (absolute, POSIX), which may be files or directories: the event for a deleted
    directory does not name the files in it. Because most deleted paths are temporary files, the function has to be
    fast. So it compares the directories of the files, which are fewer than the files.
    """
    roots = {root: Path(root).as_posix().rstrip("/") for root in {root for root, _ in keys}}
    directories = {(root, path.rpartition("/")[0]) for root, path in keys}
    gone = {(root, at) for root, at in directories if not paths.isdisjoint(_upwards(f"{roots[root]}/{at}"))}
    return [(root, path) for root, path in keys if (root, path.rpartition("/")[0]) in gone] if gone else []


def _upwards(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]
