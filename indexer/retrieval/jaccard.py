"""Exact Jaccard similarity of word sets (Repoformer, section 3; RepoCoder), through the inverted index.

Counting how many query words each chunk holds is one `bincount` over the postings of those words; the union follows
from the sizes. No candidate is skipped, so the result is that of comparing with every chunk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.segment import Segment


def shared_words(segment: Segment, query: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return for each chunk how many of the query's distinct words stand in it."""
    postings = segment.words
    return np.bincount(postings.chunks_in(postings.runs(query)), minlength=len(segment))


def similarities(segment: Segment, query: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return the Jaccard similarity of each chunk's word set with the query's (distinct keys)."""
    shared = shared_words(segment, query)
    result: NDArray[np.float64] = shared / np.maximum(segment.sizes - shared + len(query), 1)
    return result
