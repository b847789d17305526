"""The rankings of chunks for a cursor, by name. `embedding` is separate, because it needs a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from indexer.retrieval.bm25 import bm25
from indexer.retrieval.jaccard import similarities
from indexer.retrieval.ngram import CANDIDATES, tokenize, weighted_ngram_match
from indexer.retrieval.proximity import proximity
from indexer.retrieval.query import Query
from indexer.retrieval.ranking import Ranked, best
from indexer.segment import MaskedSegment

RetrieverName = Literal["proximity", "jaccard", "bm25", "weighted_ngram"]


def rank(
    retriever: RetrieverName, segments: Sequence[MaskedSegment], query: Query, k: int, excluded: Sequence[int]
) -> list[Ranked]:
    """Return the `k` best chunks for a query, best first.

    `excluded` has the order keys (`segment.order_key`) of documents that must not be in the result.
    """
    if not segments:
        return []
    if retriever == "proximity":
        return best(segments, proximity(segments, query), k, excluded)
    if retriever == "bm25":
        return best(segments, bm25(segments, query.line_keys), k, excluded)
    similar = (similarities(masked.segment, query.line_keys) for masked in segments)
    if retriever == "jaccard":
        return best(segments, similar, k, excluded)
    reference = tokenize(query.lines)
    candidates = best(segments, similar, max(k, CANDIDATES), excluded)
    scored = [
        found._replace(
            score=weighted_ngram_match(
                tokenize(segments[found.segment].segment.chunk(found.chunk).text), reference, query.language
            )
        )
        for found in candidates
    ]
    return sorted(scored, key=lambda found: -found.score)[:k]
