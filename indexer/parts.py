"""The writer's own view of the index: where each file lies, and when parts are merged.

Each change appends a small part. Parts are kept in tiers of size; four of one tier become one of the next, so that a
million lines need some twenty merges' work in all and a query meets a dozen parts at most. Large merges take a
second: they run beside the writer on a copy of references (parts never change), and `adopt` puts the result in place,
taking account of what was replaced meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from indexer.document import Extract
from indexer.segment import Part, Segment

TIER = 4  # parts of a tier before they are merged, and the factor between tiers
SMALL = 4_000  # chunks that are merged at once, in a few milliseconds

Place = tuple[str, str]  # root, path


@dataclass(frozen=True, slots=True)
class Merge:
    """Parts to be joined; `run` needs nothing but itself and may be called on any thread."""

    numbers: tuple[int, ...]
    parts: tuple[Part, ...]

    def __len__(self) -> int:
        return sum(len(part.segment) for part in self.parts)

    def run(self) -> Segment:
        """Join the parts."""
        return Segment.merge(self.parts)


class Parts:
    """The parts by number, and for each file the part and document that hold it. Used by the writer's thread alone."""

    def __init__(self) -> None:
        self._parts: dict[int, Part] = {}
        self._where: dict[Place, tuple[int, int]] = {}
        self._next = 0
        self._left: set[int] = set()

    @property
    def current(self) -> tuple[Part, ...]:
        """All parts, the largest first."""
        return tuple(sorted(self._parts.values(), key=lambda part: -len(part.segment)))

    @property
    def places(self) -> Mapping[Place, tuple[int, int]]:
        """The files the index holds."""
        return self._where

    def apply(self, extracts: Sequence[Extract], gone: Iterable[Place]) -> None:
        """Take in new or changed files and drop those that are gone, as one change."""
        fresh = {(e.document.root, e.document.path): e for e in extracts}
        dead: dict[int, list[int]] = {}
        for place in (*fresh, *gone):
            if (at := self._where.pop(place, None)) is not None:
                dead.setdefault(at[0], []).append(at[1])
        for number, documents in dead.items():
            part = self._parts[number].without(documents)
            if part.documents.any():
                self._parts[number] = part
            else:
                del self._parts[number]
        if fresh:
            self._add(Segment.build(list(fresh.values())))

    def include(self, segment: Segment) -> None:
        """Take in a segment of files, but for those that the index holds already: it knows them better."""
        self._add(segment, [n for n, d in enumerate(segment.documents) if (d.root, d.path) in self._where])

    def next_merge(self, *, tidy: bool = False) -> Merge | None:
        """Return what should be merged next, if anything.

        With `tidy`, when nothing else is to be done, also rewrite a part half of whose chunks are dead.
        """
        tiers: dict[int, list[int]] = {}
        candidates = {number: part for number, part in self._parts.items() if number not in self._left}
        for number, part in candidates.items():
            tiers.setdefault(len(part.segment).bit_length() // 2, []).append(number)
        for tier in sorted(tiers):
            if len(tiers[tier]) >= TIER:
                return self._merge_of(tiers[tier])
        if tidy:
            for number, part in candidates.items():
                if 2 * int(part.documents.sum()) < len(part.documents):
                    return self._merge_of([number])
        return None

    def adopt(self, merge: Merge, segment: Segment) -> None:
        """Put a merged segment in place of the parts it was made of.

        A file replaced or deleted since the merge began is dead in it.
        """
        alive = [
            (document.root, document.path)
            for part in merge.parts
            for document, ok in zip(part.segment.documents, part.documents.tolist(), strict=True)
            if ok
        ]
        dead = [n for n, place in enumerate(alive) if self._where.get(place, (-1, 0))[0] not in merge.numbers]
        for number in merge.numbers:
            self._parts.pop(number, None)
        self._add(segment, dead)

    def leave(self, merge: Merge) -> None:
        """Let parts that could not be merged stay as they are, for good: trying again would fail again."""
        self._left.update(merge.numbers)

    def _add(self, segment: Segment, dead: Collection[int] = ()) -> None:
        """Take in a segment but for its `dead` documents, by number."""
        if len(dead) == len(segment.documents):
            return
        number, self._next = self._next, self._next + 1
        part = Part.of(segment)
        self._parts[number] = part.without(dead) if dead else part
        skip = set(dead)
        for at, document in enumerate(segment.documents):
            if at not in skip:
                self._where[document.root, document.path] = (number, at)

    def _merge_of(self, numbers: Sequence[int]) -> Merge:
        return Merge(tuple(numbers), tuple(self._parts[number] for number in numbers))
