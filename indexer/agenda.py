"""The files still to be read: what a person just did before what a scan found, and no file twice at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice

from indexer.parts import Place

BATCH_FILES = 48  # for one message to a worker: some 0.2 s of work, so that a saved file never waits long
BATCH_BYTES = 600_000


class Agenda:
    """Places to read, in two queues, and those that a worker holds now.

    A place that changes while a worker holds it stays queued until the worker is done, so results of one file never
    overtake each other.
    """

    def __init__(self) -> None:
        self._urgent: dict[Place, None] = {}
        self._backlog: dict[Place, None] = {}
        self._flying: set[Place] = set()

    def __bool__(self) -> bool:
        return bool(self._urgent or self._backlog or self._flying)

    def __len__(self) -> int:
        return len(self._urgent) + len(self._backlog) + len(self._flying)

    def __contains__(self, place: Place) -> bool:
        return place in self._urgent or place in self._backlog or place in self._flying

    def __iter__(self) -> Iterator[Place]:
        return chain(self._urgent, self._backlog, self._flying)

    @property
    def long(self) -> bool:
        """Whether so much is left that intermediate results are worth publishing only now and then."""
        return len(self) > 2 * BATCH_FILES

    def hurry(self, places: Iterable[Place]) -> None:
        """Queue places before all that a scan found."""
        for place in places:
            self._backlog.pop(place, None)
            self._urgent[place] = None

    def add(self, places: Iterable[Place]) -> None:
        """Queue places behind all others."""
        for place in places:
            if place not in self._urgent:
                self._backlog[place] = None

    def drop(self, root: str) -> None:
        """Forget what was queued of a folder."""
        for source in (self._urgent, self._backlog):
            for place in [place for place in source if place[0] == root]:
                del source[place]

    def take(self, size_of: Callable[[Place], int]) -> list[Place]:
        """Return the next batch, which then is in flight; empty if nothing can be read now."""
        batch: list[Place] = []
        size = 0
        for source in (self._urgent, self._backlog):
            for place in list(islice(source, 4 * BATCH_FILES)):
                if place in self._flying:
                    continue
                del source[place]
                batch.append(place)
                size += size_of(place)
                if len(batch) >= BATCH_FILES or size >= BATCH_BYTES:
                    break
            if batch:
                break
        self._flying.update(batch)
        return batch

    def done(self, places: Iterable[Place]) -> None:
        """Say that a worker holds these no longer."""
        self._flying.difference_update(places)
