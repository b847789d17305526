"""BM25 over words: counts matter and saturate, rare words matter more, long chunks are held to account.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with the usual k1 and b. How
rare a word is, is judged in all parts of the index together, so a score does not depend on how the index is cut up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.retrieval.ranking import Score
    from indexer.segment import Part, Segment

K1, B = 1.2, 0.75


def rarity(parts: Sequence[Part], query: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return the inverse document frequency of each query word, log(1 + (N - n + ½) / (n + ½)) over live chunks' parts.

    Chunks that are dead but not yet merged away would make an index built by edits differ from one built from
    scratch, so they are not counted.
    """
    total = sum(int(part.live.sum()) for part in parts)
    holding = np.zeros(len(query))
    for part in parts:
        postings = part.segment.words
        holding += [np.count_nonzero(part.live[postings.chunks[run]]) for run in postings.runs(query)]
    result: NDArray[np.float64] = np.log1p((total - holding + 0.5) / (holding + 0.5))
    return result


def mean_size(parts: Sequence[Part]) -> float:
    """Return the mean number of distinct words of a live chunk."""
    total = sum(int(part.live.sum()) for part in parts)
    return sum(int(part.segment.sizes[part.live].sum()) for part in parts) / max(total, 1)


def bm25(parts: Sequence[Part], query: NDArray[np.uint64]) -> Score:
    """Return the score of chunks against the query's distinct words."""
    weights, mean = rarity(parts, query), mean_size(parts)

    def score(segment: Segment) -> NDArray[np.float64]:
        postings = segment.words
        length = K1 * (1 - B + B * segment.sizes / max(mean, 1.0))
        scores = np.zeros(len(segment))
        for run, weight in zip(postings.runs(query), weights.tolist(), strict=True):
            chunks, counts = postings.chunks[run], postings.counts[run].astype(np.float64)
            scores[chunks] += weight * counts * (K1 + 1) / (counts + length[chunks])
        return scores

    return score
