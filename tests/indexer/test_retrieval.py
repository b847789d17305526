"""The results of each retriever, compared with a slow and simple implementation of its definition."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from indexer.chunking import Chunking
from indexer.model import Cursor
from indexer.retrieval.bm25 import K1, B, bm25
from indexer.retrieval.embedding import EmbeddingRetriever, Vectors
from indexer.retrieval.ngram import keywords, tokenize, weighted_ngram_match
from indexer.retrieval.proximity import SMOOTHING, proximity
from indexer.retrieval.query import HALF_LINES, Query
from indexer.snapshot import Snapshot
from indexer.words import jaccard, keys, words

vocabulary = st.sampled_from([f"w{n}" for n in range(12)])
texts = st.lists(st.lists(vocabulary, min_size=1, max_size=12).map(" ".join), min_size=1, max_size=12)


def snapshot_of(texts: Sequence[str]) -> Snapshot:
    return Snapshot.of([(f"f{n}.txt", text) for n, text in enumerate(texts)], Chunking(style="window"), root="/ws")


@given(texts, st.lists(vocabulary, min_size=1, max_size=8).map(" ".join))
def test_jaccard_equals_brute_force(texts: list[str], query: str) -> None:
    expected = sorted((jaccard(words(query), words(text)) for text in texts), reverse=True)
    found = snapshot_of(texts).query(query, 5)
    assert [hit.score for hit in found] == [score for score in expected[:5] if score > 0]
    assert all(hit.score == jaccard(words(query), words(hit.chunk.text)) for hit in found)


@given(texts, st.sets(vocabulary, min_size=1, max_size=8))
def test_bm25_and_proximity_equal_their_formulas(texts: list[str], asked: set[str]) -> None:
    snapshot = snapshot_of(texts)
    counts = [Counter(text.split()) for text in texts]
    holding = {word: sum(word in count for count in counts) for word in asked}
    idf = {word: math.log1p((len(texts) - n + 0.5) / (n + 0.5)) for word, n in holding.items()}
    mean = sum(map(len, counts)) / len(counts)
    expected = [
        sum(idf[word] * count[word] * (K1 + 1) / (count[word] + K1 * (1 - B + B * len(count) / mean)) for word in asked)
        for count in counts
    ]
    np.testing.assert_allclose(next(bm25(snapshot.segments, keys(asked))), expected)
    query = Query("", dict.fromkeys(asked, 0.5))
    expected = [
        sum(0.5 * idf[word] for word in asked if word in count) / math.sqrt(len(count) + SMOOTHING) for count in counts
    ]
    np.testing.assert_allclose(next(proximity(snapshot.segments, query)), expected)


def test_a_word_counts_less_the_further_it_is_from_the_cursor() -> None:
    query = Query.at(Cursor("", "far\nhere\nnear he", "re\n\nnext\n", "python"), 20)
    step = 0.5 ** (1 / HALF_LINES)
    assert query.lines == "far\nhere\nnear he"
    expected = {"near": 1, "he": 1, "re": 1, "here": step, "next": step**2, "far": step**2}
    assert query.weights == pytest.approx(expected)


def test_weighted_ngram_match() -> None:
    assert {"def", "return", "lambda"} <= keywords("python")
    assert "area" not in keywords("python")
    code = tokenize("def area(w, h): return w * h")
    assert weighted_ngram_match(code, code, "python") == 1.0
    swapped = tokenize("return h * w : def area(w, h)")
    renamed = tokenize("def volume(w, h): return w * h")
    assert weighted_ngram_match(swapped, code, "python") < weighted_ngram_match(renamed, code, "python") < 1.0
    assert weighted_ngram_match([], code, "python") == 0.0


def test_embeddings_are_compared_by_cosine_and_computed_once(tmp_path: Path) -> None:
    asked: list[str] = []

    def letters(texts: Sequence[str]) -> NDArray[np.float32]:
        asked.extend(texts)
        return np.array([[text.count(letter) for letter in "abcdefghij"] for text in texts], np.float32)

    snapshot = snapshot_of(["aab", "bcc", "hij"])
    cursor = Cursor("/ws/f2.txt", "ccb", "", "")
    for _ in range(2):
        vectors = Vectors(letters, "letters", tmp_path / "vectors.sqlite3")
        hits = EmbeddingRetriever.of(snapshot, vectors).search(cursor, 5)
        vectors.close()
        assert [hit.chunk.path for hit in hits] == ["f1.txt", "f0.txt"]
    assert sorted(asked) == ["aab", "bcc", "ccb", "hij"]
