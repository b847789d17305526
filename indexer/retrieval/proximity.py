"""Rank chunks by rare words near the cursor, on both sides of it. This is the default.

A chunk's score is the sum, over the query's words in it, of (nearness to the cursor) × (rarity in the workspace),
divided by the square root of the chunk's size. The paper compares the set of words of the last twenty lines, and so
often finds a copy of the lines before the cursor. This ranking finds code that belongs *between* the lines before and
after the cursor. docs/retrieval.md has the figures and the alternatives.
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

SMOOTHING = 5.0  # words added to a chunk's size, so that a chunk of one line does not rank first for being short


def proximity(segments: Sequence[MaskedSegment], query: Query) -> Iterator[NDArray[np.float64]]:
    """Yield, for each segment, the scores of its chunks for a query, shape (chunks,)."""
    words, nearness = query.weighted_keys
    runs = [masked.segment.words.runs(words) for masked in segments]
    weights = nearness * rarity(segments, runs)
    for masked, found in zip(segments, runs, strict=True):
        postings = masked.segment.words
        scores = np.bincount(postings.chunks_in(found), postings.spread(found, weights), minlength=len(masked.segment))
        yield scores / np.sqrt(masked.segment.sizes + SMOOTHING)
