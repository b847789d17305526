"""The default: rare words near the cursor, on both sides of it.

A chunk's score is the sum over the query's words that stand in it of (how near the cursor) × (how rare in the
workspace), divided by the root of the chunk's size. Against the paper's plain sets of the last twenty lines this
finds what belongs *between* the lines before and after the cursor rather than a copy of the lines before it;
docs/retrieval.md has the figures and what else was tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from indexer.retrieval.rarity import rarity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.retrieval.query import Query
    from indexer.segment import MaskedSegment

SMOOTHING = 5.0  # words: keeps a chunk of one line from winning by being short


def proximity(segments: Sequence[MaskedSegment], query: Query) -> Iterator[NDArray[np.float64]]:
    """Yield, for each segment, the scores of its chunks at a cursor."""
    words, nearness = query.weighted_keys
    runs = [masked.segment.words.runs(words) for masked in segments]
    weights = nearness * rarity(segments, runs)
    for masked, found in zip(segments, runs, strict=True):
        postings = masked.segment.words
        scores = np.bincount(postings.chunks_in(found), postings.spread(found, weights), minlength=len(masked.segment))
        yield scores / np.sqrt(masked.segment.sizes + SMOOTHING)
