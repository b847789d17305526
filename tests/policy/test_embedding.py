"""Embedding models in a real worker: a tiny BERT, and a decoder whose metadata do not say how to pool the tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.model import Cursor
from indexer.retrieval.embedding import Embed, EmbeddingRetriever, Vectors
from indexer.snapshot import Snapshot
from policy.engine.embedding import embedding_model
from policy.errors import ModelMissing
from tests.policy.tiny_embedder import LONGEST, tiny_bert

TEXTS = ["def area(w, h): w", "x = 1", "area(w, h)", "", "y = 2, z = 3"]


@pytest.fixture(scope="module")
def embed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embed]:
    with embedding_model(tiny_bert(tmp_path_factory.mktemp("embedder") / "tiny.gguf")) as function:
        yield function


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths: NDArray[np.float32] = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / lengths


def test_a_vector_does_not_depend_on_the_batch(embed: Embed) -> None:
    together = unit(embed(TEXTS * 8))  # more texts than the engine has sequences
    alone = unit(np.concatenate([embed([text]) for text in TEXTS]))
    assert together.shape == (len(TEXTS) * 8, 32)
    np.testing.assert_allclose(together, np.tile(alone, (8, 1)), atol=1e-3)
    others = together[: len(TEXTS)] @ alone.T - np.eye(len(TEXTS))
    assert others.max() < 0.999


def test_a_text_longer_than_the_model_is_cut(embed: Embed) -> None:
    start = "a" * (LONGEST - 2)  # the tokenizer adds one token at each end
    np.testing.assert_allclose(unit(embed([start])), unit(embed([start + "b" * 5_000])), atol=1e-3)


def test_no_text_has_no_vector(embed: Embed) -> None:
    assert embed([]).shape == (0, 0)


def test_a_snapshot_is_searched_by_the_vectors_of_a_model(embed: Embed) -> None:
    snapshot = Snapshot.of([("a.py", "def area(w, h): w"), ("b.py", "xyz = 10001"), ("c.py", "area(w, h)")], root="/ws")
    with closing(Vectors(embed, "tiny")) as vectors:
        retriever = EmbeddingRetriever.of(snapshot, vectors)
        hits = retriever.search(Cursor("/ws/c.py", "def area(w, h): w", "", "python"), 5)
    assert [hit.chunk.path for hit in hits] == ["a.py", "b.py"]
    assert hits[0].score == 1.0


def test_a_decoder_gives_the_mean_of_its_states(model: Path) -> None:
    with embedding_model(model) as embed:
        first, again, other = unit(embed(["def area(w, h):", "def area(w, h):", "import os"]))
    assert first @ again == pytest.approx(1.0, abs=1e-3)
    assert first @ other < 0.999


def test_a_missing_model_is_reported(tmp_path: Path) -> None:
    with embedding_model(tmp_path / "none.gguf") as embed, pytest.raises(ModelMissing):
        embed(["x"])
