"""The default: rare words near the cursor, on both sides of it.

A chunk's score is the sum over the query's words that stand in it of (how near the cursor) × (how rare in the
workspace), divided by the root of the chunk's size. Against the paper's plain sets of the last twenty lines this
finds what belongs *between* the lines before and after the cursor rather than a copy of the lines before it;
docs/retrieval.md has the figures and what else was tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from indexer.arrays import join, repeat
from indexer.retrieval.bm25 import rarity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.retrieval.query import Query
    from indexer.retrieval.ranking import Score
    from indexer.segment import Part, Segment

SMOOTHING = 5.0  # words: keeps a chunk of one line from winning by being short


def proximity(parts: Sequence[Part], query: Query) -> Score:
    """Return the score of chunks at a cursor."""
    words, nearness = query.weighted_keys
    weights = nearness * rarity(parts, words)

    def score(segment: Segment) -> NDArray[np.float64]:
        postings = segment.words
        runs = postings.runs(words)
        chunks = join([postings.chunks[run] for run in runs], np.int32)
        lengths = np.array([run.stop - run.start for run in runs], np.int64)
        scores = np.bincount(chunks, repeat(weights, lengths), minlength=len(segment))
        result: NDArray[np.float64] = scores / np.sqrt(segment.sizes + SMOOTHING)
        return result

    return score
