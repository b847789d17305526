"""Semantic retrieval: cosine similarity of embeddings, for any model that turns texts into vectors.

The caller passes the model as a function (`Embed`), because this package does not depend on the engine that runs GGUF
models (`policy.engine.embedding` makes such a function from a file). One SQLite table maps the hash of the model and
the text to the vector, so that only new text is embedded. A search is exact: one matrix product over all chunks. The
paper measured UniXcoder in this way and found it no better than Jaccard similarity, at a far higher cost: on a CPU,
embedding every chunk takes minutes, and counting words takes seconds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexer.model import Chunk, Cursor, Hit
from indexer.retrieval.query import Query
from indexer.words import jaccard, words

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.snapshot import Snapshot

# Takes n texts and returns an array of shape (n, dimensions).
Embed = Callable[[Sequence[str]], "NDArray[np.float32]"]

BATCH = 32


class Vectors:
    """The vectors of texts under one model, stored in the SQLite database `file`, or in memory if it is None."""

    def __init__(self, embed: Embed, model: str, file: Path | None = None) -> None:
        self._embed = embed
        self._model = model
        self._database = sqlite3.connect(file or ":memory:", check_same_thread=False)
        self._database.execute("CREATE TABLE IF NOT EXISTS vector (digest BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")

    def of(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the unit vectors of texts as rows, shape (len(texts), dimensions). Only new texts are embedded."""
        digests = [self._digest(text) for text in texts]
        known = {digest: value for digest in set(digests) if (value := self._read(digest)) is not None}
        fresh = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in known}
        items = list(fresh.items())
        for start in range(0, len(items), BATCH):
            batch = items[start : start + BATCH]
            rows = np.asarray(self._embed([text for _, text in batch]), np.float32)
            rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
            known.update(zip((digest for digest, _ in batch), rows, strict=True))
            with self._database:
                self._database.executemany(
                    "INSERT OR REPLACE INTO vector VALUES (?, ?)",
                    [(digest, row.astype("<f4").tobytes()) for (digest, _), row in zip(batch, rows, strict=True)],
                )
        return np.stack([known[digest] for digest in digests]) if digests else np.empty((0, 0), np.float32)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _read(self, digest: bytes) -> NDArray[np.float32] | None:
        row = self._database.execute("SELECT value FROM vector WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else np.frombuffer(row[0], "<f4")

    def _digest(self, text: str) -> bytes:
        return blake2b(f"{self._model}\0{text}".encode("utf-8", "replace"), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class EmbeddingRetriever:
    """A `Retriever` over the chunks of one snapshot. Each row of `matrix` is the unit vector of a chunk."""

    chunks: tuple[Chunk, ...]
    matrix: NDArray[np.float32] = field(repr=False)
    vectors: Vectors = field(repr=False)
    query_lines: int = 20

    @classmethod
    def of(cls, snapshot: Snapshot, vectors: Vectors) -> EmbeddingRetriever:
        """Embed the new chunks of a snapshot.

        The first call is slow, so do not call this on a thread that serves requests.
        """
        chunks = tuple(snapshot.all_chunks())
        return cls(chunks, vectors.of([_text(chunk) for chunk in chunks]), vectors, snapshot.query_lines)

    def search(self, cursor: Cursor, k: int) -> tuple[Hit, ...]:
        """Return the `k` chunks nearest to the lines before the cursor. `Hit.score` is their Jaccard similarity."""
        lines = Query.at(cursor, self.query_lines).lines
        if not self.chunks or not lines.strip():
            return ()
        scores = self.matrix @ self.vectors.of([lines])[0]
        query = words(lines)
        own = (number for number in np.argsort(-scores, kind="stable").tolist() if not self._is(number, cursor.path))
        return tuple(
            Hit(self.chunks[number], jaccard(query, words(self.chunks[number].text))) for number in _first(own, k)
        )

    def _is(self, number: int, path: str) -> bool:
        return str(self.chunks[number].file) == path


def _text(chunk: Chunk) -> str:
    return f"{chunk.header}\n{chunk.text}" if chunk.header else chunk.text


def _first(numbers: Iterable[int], k: int) -> list[int]:
    return [number for number, _ in zip(numbers, range(k), strict=False)]
