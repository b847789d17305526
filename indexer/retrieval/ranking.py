"""Select the k best chunks of all segments, in an order that does not depend on how the index is split into segments.

Equal scores are common (a Jaccard similarity is a ratio of small numbers). Chunks with equal scores are sorted by the
document's order key and by line, so an index built file by file gives the same answer as one built at once.

Sorting or partitioning all scores would cost more than computing them. Instead, one pass computes the maximum of each
block of scores. At least k chunks reach the k-th highest of these maxima. Few other chunks do, and only the chunks that
reach it are sorted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from indexer.document import START_LINE
from indexer.segment import MaskedSegment

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 64  # number of scores in a block


class Ranked(NamedTuple):
    """Chunk number `chunk` of segment number `segment`, and its score."""

    score: float
    segment: int
    chunk: int


def best(
    segments: Sequence[MaskedSegment], scores: Iterable[NDArray[np.float64]], k: int, excluded: Collection[int] = ()
) -> list[Ranked]:
    """Return up to `k` live chunks with a score above zero, best first.

    `scores` has one array for each segment, with one score for each chunk; the arrays are modified. `excluded` has the
    order keys (`segment.order_key`) of documents that must not be in the result, such as the cursor's own file.
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
    """Return a score above zero that at least `k` chunks reach and few others do, or 0.0 if none is found."""
    if len(scores) <= k:
        return 0.0
    whole = len(scores) - len(scores) % BLOCK
    maxima = np.append(scores[:whole].reshape(-1, BLOCK).max(axis=1), scores[whole:].max(initial=0.0))
    highest = maxima if len(maxima) > k else scores
    return float(np.partition(highest, len(highest) - k)[len(highest) - k])
