"""BM25 over words: words that are frequent in the chunk and rare in the index count most, corrected for chunk length.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with the usual k1 and b.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from indexer.arrays import join
from indexer.retrieval.rarity import rarity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.segment import MaskedSegment

K1, B = 1.2, 0.75


def bm25(segments: Sequence[MaskedSegment], query: NDArray[np.uint64]) -> Iterator[NDArray[np.float64]]:
    """Yield, for each segment, the scores of its chunks against the query's distinct words."""
    runs = [masked.segment.words.runs(query) for masked in segments]
    rare, mean = rarity(segments, runs), _mean_size(segments)
    for masked, found in zip(segments, runs, strict=True):
        postings = masked.segment.words
        chunks = postings.chunks_in(found)
        counts = join([postings.counts[run] for run in found], np.uint8).astype(np.float64)
        length = K1 * (1 - B + B * masked.segment.sizes / max(mean, 1.0))
        values = postings.spread(found, rare) * counts * (K1 + 1) / (counts + length[chunks])
        # numpy's stubs say that `bincount` returns integers, but with weights it returns floats.
        yield cast("NDArray[np.float64]", np.bincount(chunks, values, minlength=len(masked.segment)))


def _mean_size(segments: Sequence[MaskedSegment]) -> float:
    """Return the mean number of distinct words of a live chunk."""
    total = sum(int(np.count_nonzero(masked.live)) for masked in segments)
    return sum(int(masked.segment.sizes[masked.live].sum()) for masked in segments) / max(total, 1)
