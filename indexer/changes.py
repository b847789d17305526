"""What is still to be looked at, and when: debouncing without timers.

A save is looked at after a moment's quiet, since editors write a file in several steps. Many changes at once (a branch
switch, an install) are waited out so that they are handled as one. Callers pass the time in, so tests need no clock.
What is gone may have been a folder, and nobody says what was in it: `lost_with` does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Set
from pathlib import Path

from indexer.parts import Place

QUIET = 0.02  # seconds without a further change before a few files are looked at
LATEST = 0.10  # and how long a steady trickle may put that off
MANY = 100  # paths from which on a burst is waited out
MANY_QUIET, MANY_LATEST = 0.25, 3.0


class Burst:
    """Paths that changed, gathered until they are due together."""

    def __init__(self, quiet: float = QUIET, latest: float = LATEST) -> None:
        self._quiet, self._latest = quiet, latest
        self._paths: dict[str, None] = {}
        self._first = self._last = 0.0

    def __bool__(self) -> bool:
        return bool(self._paths)

    def add(self, path: str, now: float) -> None:
        """Note a change."""
        if not self._paths:
            self._first = now
        self._last = now
        self._paths[path] = None

    def due(self) -> float:
        """Return the time at which the gathered paths are due; infinite if there are none."""
        if not self._paths:
            return float("inf")
        many = len(self._paths) >= MANY
        quiet, latest = (MANY_QUIET, MANY_LATEST) if many else (self._quiet, self._latest)
        return min(self._last + quiet, self._first + latest)

    def take(self, now: float) -> list[str]:
        """Return the paths if they are due by now, oldest first, and forget them."""
        if now < self.due():
            return []
        paths, self._paths = list(self._paths), {}
        return paths


def lost_with(paths: Set[str], places: Collection[Place]) -> list[Place]:
    """Return which of some files lay, at any depth, in a folder among `paths` (absolute, POSIX).

    Most paths that vanish are temporary files and held nothing, so what is looked at is each directory, not each file.
    """
    roots = {root: Path(root).as_posix().rstrip("/") for root in {root for root, _ in places}}
    directories = {(root, path.rpartition("/")[0]) for root, path in places}
    gone = {(root, at) for root, at in directories if not paths.isdisjoint(_upwards(f"{roots[root]}/{at}"))}
    return [(root, path) for root, path in places if (root, path.rpartition("/")[0]) in gone] if gone else []


def _upwards(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]
