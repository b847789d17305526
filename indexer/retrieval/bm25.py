"""BM25 over words: counts matter and saturate, rare words matter more, long chunks are held to account.

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

    from indexer.segment import Part

K1, B = 1.2, 0.75


def bm25(parts: Sequence[Part], query: NDArray[np.uint64]) -> Iterator[NDArray[np.float64]]:
    """Yield, for each part, the scores of its chunks against the query's distinct words."""
    runs = [part.segment.words.runs(query) for part in parts]
    rare, mean = rarity(parts, runs), _mean_size(parts)
    for part, found in zip(parts, runs, strict=True):
        postings = part.segment.words
        chunks = postings.chunks_in(found)
        counts = join([postings.counts[run] for run in found], np.uint8).astype(np.float64)
        length = K1 * (1 - B + B * part.segment.sizes / max(mean, 1.0))
        values = postings.spread(found, rare) * counts * (K1 + 1) / (counts + length[chunks])
        # numpy's stubs give `bincount` integers, which it has only without weights.
        yield cast("NDArray[np.float64]", np.bincount(chunks, values, minlength=len(part.segment)))


def _mean_size(parts: Sequence[Part]) -> float:
    """Return the mean number of distinct words of a live chunk."""
    total = sum(int(np.count_nonzero(part.live)) for part in parts)
    return sum(int(part.segment.sizes[part.live].sum()) for part in parts) / max(total, 1)
