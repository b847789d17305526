"""The segments of the index, the segment that contains each file, and the choice of segments to merge.

Each change appends a small segment. Segments form tiers by size, and four segments of one tier are merged into one of
the next tier. So a query searches about a dozen segments at most. A large merge takes about a second. It can run on
another thread, because segments never change. `adopt` then replaces the merged segments, and leaves out the files that
changed during the merge.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from indexer.document import Extract
from indexer.locations import FileKey
from indexer.segment import MaskedSegment, Segment

TIER = 4  # the number of segments of a tier that are merged into one, and the factor between the sizes of tiers
SMALL = 4_000  # a merge of at most this many chunks takes a few milliseconds, and runs on the writer's thread


@dataclass(frozen=True, slots=True)
class Merge:
    """Segments to merge. `run` uses no shared state, so any thread can call it."""

    numbers: tuple[int, ...]
    segments: tuple[MaskedSegment, ...]

    def __len__(self) -> int:
        return sum(len(masked.segment) for masked in self.segments)

    def run(self) -> Segment:
        """Merge the segments into one."""
        return Segment.merge(self.segments)


class SegmentList:
    """Segments by number, and the location of each file in them. Used only on the writer's thread."""

    def __init__(self) -> None:
        self._segments: dict[int, MaskedSegment] = {}
        self._where: dict[FileKey, tuple[int, int]] = {}
        self._next = 0
        self._never_merged: set[int] = set()

    @property
    def current(self) -> tuple[MaskedSegment, ...]:
        """All segments, largest first."""
        return tuple(sorted(self._segments.values(), key=lambda masked: -len(masked.segment)))

    @property
    def files(self) -> Mapping[FileKey, tuple[int, int]]:
        """The segment and document number of each indexed file."""
        return self._where

    def apply(self, extracts: Sequence[Extract], gone: Iterable[FileKey]) -> None:
        """Add new or changed files and remove deleted files, as one change."""
        fresh = {(e.document.root, e.document.path): e for e in extracts}
        dead: dict[int, list[int]] = {}
        for key in (*fresh, *gone):
            if (at := self._where.pop(key, None)) is not None:
                dead.setdefault(at[0], []).append(at[1])
        for number, documents in dead.items():
            masked = self._segments[number].without(documents)
            if masked.documents.any():
                self._segments[number] = masked
            else:
                del self._segments[number]
        if fresh:
            self._add(Segment.build(list(fresh.values())))

    def include(self, segment: Segment) -> None:
        """Add a segment, except for files that the index already contains in a newer version."""
        self._add(segment, [n for n, d in enumerate(segment.documents) if (d.root, d.path) in self._where])

    def next_merge(self, *, tidy: bool = False) -> Merge | None:
        """Return the next merge to run, or None.

        With `tidy`, if there is nothing else to merge, rewrite a segment more than half of whose documents are dead.
        """
        tiers: dict[int, list[int]] = {}
        candidates = {number: masked for number, masked in self._segments.items() if number not in self._never_merged}
        for number, masked in candidates.items():
            tiers.setdefault(len(masked.segment).bit_length() // 2, []).append(number)
        for tier in sorted(tiers):
            if len(tiers[tier]) >= TIER:
                return self._merge_of(tiers[tier])
        if tidy:
            for number, masked in candidates.items():
                if 2 * int(masked.documents.sum()) < len(masked.documents):
                    return self._merge_of([number])
        return None

    def adopt(self, merge: Merge, segment: Segment) -> None:
        """Replace the segments of a merge by the merged segment.

        A file that was replaced or deleted since the merge began is marked as dead.
        """
        alive = [
            (document.root, document.path)
            for masked in merge.segments
            for document, ok in zip(masked.segment.documents, masked.documents.tolist(), strict=True)
            if ok
        ]
        dead = [n for n, key in enumerate(alive) if self._where.get(key, (-1, 0))[0] not in merge.numbers]
        for number in merge.numbers:
            self._segments.pop(number, None)
        self._add(segment, dead)

    def exclude_from_merging(self, merge: Merge) -> None:
        """Exclude the segments of a merge from later merges, because this merge failed and would fail again."""
        self._never_merged.update(merge.numbers)

    def _add(self, segment: Segment, dead: Collection[int] = ()) -> None:
        """Add a segment, except for its `dead` documents (given by number)."""
        if len(dead) == len(segment.documents):
            return
        number, self._next = self._next, self._next + 1
        masked = MaskedSegment.of(segment)
        self._segments[number] = masked.without(dead) if dead else masked
        skip = set(dead)
        for at, document in enumerate(segment.documents):
            if at not in skip:
                self._where[document.root, document.path] = (number, at)

    def _merge_of(self, numbers: Sequence[int]) -> Merge:
        return Merge(tuple(numbers), tuple(self._segments[number] for number in numbers))
