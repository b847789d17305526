"""Ways to rank chunks for a cursor, by name; `embedding`, which needs a model, stands beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from indexer.retrieval.bm25 import bm25
from indexer.retrieval.jaccard import similarities
from indexer.retrieval.ngram import CANDIDATES, tokenize, weighted_ngram_match
from indexer.retrieval.proximity import proximity
from indexer.retrieval.query import Query
from indexer.retrieval.ranking import Ranked, best
from indexer.segment import Part

RetrieverName = Literal["proximity", "jaccard", "bm25", "weighted_ngram"]


def rank(
    retriever: RetrieverName, parts: Sequence[Part], query: Query, k: int, excluded: Sequence[int]
) -> list[Ranked]:
    """Return the `k` best chunks for a query, best first; `excluded` are places (`segment.place`) of documents."""
    if not parts:
        return []
    if retriever == "proximity":
        return best(parts, proximity(parts, query), k, excluded)
    if retriever == "bm25":
        return best(parts, bm25(parts, query.line_keys), k, excluded)
    similar = (similarities(part.segment, query.line_keys) for part in parts)
    if retriever == "jaccard":
        return best(parts, similar, k, excluded)
    reference = tokenize(query.lines)
    candidates = best(parts, similar, max(k, CANDIDATES), excluded)
    scored = [
        found._replace(
            score=weighted_ngram_match(
                tokenize(parts[found.part].segment.chunk(found.chunk).text), reference, query.language
            )
        )
        for found in candidates
    ]
    return sorted(scored, key=lambda found: -found.score)[:k]
