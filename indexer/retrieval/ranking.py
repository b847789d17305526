"""The k best chunks of all segments under some score, in an order that does not depend on how the index is cut up.

Equal scores are common (a Jaccard similarity is a ratio of small numbers), so ties are broken by the document's place
and the line: an index built file by file answers exactly as one built from scratch.

Selecting costs more than scoring if every score is sorted or partitioned. But the k-th highest of the maxima of blocks
is a floor that at least k chunks reach, found at the cost of one pass; few chunks reach it, and only those are sorted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from indexer.document import START_LINE
from indexer.segment import MaskedSegment

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 64  # chunks


class Ranked(NamedTuple):
    """A chunk (number `chunk` of segment `segment`) and its score."""

    score: float
    segment: int
    chunk: int


def best(
    segments: Sequence[MaskedSegment], scores: Iterable[NDArray[np.float64]], k: int, excluded: Collection[int] = ()
) -> list[Ranked]:
    """Return up to `k` live chunks with a score above zero, best first.

    `scores` has an array a segment, one score a chunk, which is changed in place. `excluded` are order keys
    (`segment.order_key`) of documents that must not answer, such as the cursor's own file.
    """
    if k <= 0:
        return []
    floor = 0.0
    found: list[tuple[float, int, int, Ranked]] = []
    for number, (masked, segment_scores) in enumerate(zip(segments, scores, strict=True)):
        segment = masked.segment
        segment_scores *= masked.live
        for at in excluded:
            for document in np.flatnonzero(segment.order == np.uint64(at)).tolist():
                segment_scores[segment.first[document] : segment.first[document + 1]] = 0.0
        floor = max(floor, _floor(segment_scores, k))
        chunks = np.flatnonzero(segment_scores >= floor if floor > 0 else segment_scores)
        documents = np.searchsorted(segment.first, chunks, side="right") - 1
        columns = (segment_scores[chunks], segment.order[documents], segment.spans[chunks, START_LINE], chunks)
        for score, order, line, chunk in zip(*(column.tolist() for column in columns), strict=True):
            found.append((-score, order, line, Ranked(score, number, chunk)))
    found.sort(key=lambda entry: entry[:3])
    return [ranked for *_, ranked in found[:k]]


def _floor(scores: NDArray[np.float64], k: int) -> float:
    """Return a score that at least `k` chunks reach and not many more do; 0.0 if there is none above zero."""
    if len(scores) <= k:
        return 0.0
    whole = len(scores) - len(scores) % BLOCK
    maxima = np.append(scores[:whole].reshape(-1, BLOCK).max(axis=1), scores[whole:].max(initial=0.0))
    highest = maxima if len(maxima) > k else scores
    return float(np.partition(highest, len(highest) - k)[len(highest) - k])
