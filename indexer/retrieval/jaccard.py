"""Exact Jaccard similarity of word sets (Repoformer, section 3; RepoCoder), computed from the inverted index.

One `bincount` over the postings of the query's words counts how many of these words each chunk contains. The size of
the union follows from the sizes of the two sets. No chunk is skipped, so the result equals a comparison with every
chunk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.segment import Segment


def shared_words(segment: Segment, query: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return for each chunk how many of the query's distinct words it contains, shape (chunks,)."""
    postings = segment.words
    return np.bincount(postings.chunks_in(postings.runs(query)), minlength=len(segment))


def similarities(segment: Segment, query: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return the Jaccard similarity of each chunk to the query, shape (chunks,). `query` has distinct keys of words."""
    shared = shared_words(segment, query)
    result: NDArray[np.float64] = shared / np.maximum(segment.sizes - shared + len(query), 1)
    return result
