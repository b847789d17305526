"""The index at one moment: immutable, shared between threads without a lock, and itself a `Retriever`.

A request uses the snapshot that is current when it starts, while the writer publishes newer ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path, PurePath

import numpy as np

from indexer.chunking import Chunking
from indexer.document import START_LINE, Document
from indexer.extract import extract
from indexer.languages import language_of
from indexer.model import Chunk, Cursor, Hit
from indexer.retrieval import RetrieverName, rank
from indexer.retrieval.jaccard import similarities
from indexer.retrieval.query import Query
from indexer.retrieval.ranking import Ranked, best
from indexer.segment import MaskedSegment, Segment, order_key
from indexer.words import first_lines, jaccard, keys, last_lines, words

NEAR_COPY = 0.98  # a chunk adds nothing if at least this share of its words is also around the cursor


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the index at `version`. `segments` has the documents of all `roots`.

    `real_roots` has the real path of each root (all links followed), or is empty if these are the same paths.
    """

    roots: tuple[str, ...] = ()
    segments: tuple[MaskedSegment, ...] = ()
    version: int = 0
    retriever: RetrieverName = "proximity"
    query_lines: int = 20
    real_roots: tuple[str, ...] = ()
    _counts: tuple[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        files = sum(int(masked.documents.sum()) for masked in self.segments)
        object.__setattr__(self, "_counts", (files, sum(int(masked.live.sum()) for masked in self.segments)))

    @classmethod
    def of(
        cls,
        files: Iterable[tuple[str, str]],
        chunking: Chunking | None = None,
        *,
        root: str = "/",
        retriever: RetrieverName = "proximity",
        query_lines: int = 20,
    ) -> Snapshot:
        """Index (path, text) pairs in memory, without disk or threads. Paths are relative and POSIX."""
        cut = chunking or Chunking()
        extracts = [extract(text, language_of(path), cut, root=root, path=path) for path, text in files]
        return cls((root,), (MaskedSegment.of(Segment.build(extracts)),), retriever=retriever, query_lines=query_lines)

    @property
    def files(self) -> int:
        """The number of files in the index."""
        return self._counts[0]

    @property
    def chunks(self) -> int:
        """The number of chunks that a search can return."""
        return self._counts[1]

    def search(self, cursor: Cursor, k: int) -> tuple[Hit, ...]:
        """Return up to `k` chunks that a completion at the cursor is likely to need, best first.

        The result leaves out chunks of the cursor's own file, chunks nearly all of whose words are also around the
        cursor (they add nothing, and make a model repeat that text), and all but the first of several chunks with the
        same text.
        """
        query = Query.at(cursor, self.query_lines)
        lines = words(query.lines)
        around = words(last_lines(cursor.prefix, 2 * self.query_lines)) | words(
            first_lines(cursor.suffix, self.query_lines)
        )
        hits: dict[str, Hit] = {}
        for ranked in rank(self.retriever, self.segments, query, 2 * k + 4, self._order_keys(cursor.path)):
            chunk = self._chunk(ranked)
            found = words(chunk.text)
            if chunk.text not in hits and len(found & around) < NEAR_COPY * len(found):
                hits[chunk.text] = Hit(chunk, jaccard(found, lines))
                if len(hits) == k:
                    break
        return tuple(hits.values())

    def query(self, text: str, k: int, *, exclude: str = "") -> tuple[Hit, ...]:
        """Return up to `k` chunks with the greatest Jaccard similarity to a text, best first.

        Unlike `search`, this method keeps near copies of the text and chunks with the same text. `exclude` is the path
        of a file to leave out: absolute, or relative to a root.
        """
        asked = keys(words(text))
        scores = (similarities(masked.segment, asked) for masked in self.segments)
        found = best(self.segments, scores, k, self._order_keys(exclude))
        return tuple(Hit(self._chunk(ranked), ranked.score) for ranked in found)

    def all_chunks(self) -> Iterator[Chunk]:
        """Yield every chunk that a search can return."""
        for masked in self.segments:
            every = (chunk for document in masked.segment.documents for chunk in document.chunks())
            yield from compress(every, masked.live.tolist())

    def following(self, chunk: Chunk) -> Chunk | None:
        """Return the next chunk in the same file (the paper's fragment alignment), or None after the last one."""
        at = order_key(chunk.root, chunk.path)
        for masked in self.segments:
            segment = masked.segment
            for number in np.flatnonzero(masked.documents & (segment.order == np.uint64(at))).tolist():
                document: Document = segment.documents[number]
                following = int(np.searchsorted(document.spans[:, START_LINE], chunk.start_line)) + 1
                if following < len(document) and masked.live[segment.first[number] + following]:
                    return document.chunk(following)
        return None

    def _chunk(self, ranked: Ranked) -> Chunk:
        return self.segments[ranked.segment].segment.chunk(ranked.chunk)

    def _order_keys(self, path: str) -> Sequence[int]:
        """Return the order keys that a path may have in the index: one for each root that contains it."""
        if not path:
            return ()
        if not Path(path).is_absolute():
            return [order_key(root, PurePath(path).as_posix()) for root in self.roots]
        # Both the document and the folder may be opened through a link, so their real paths are compared.
        real = PurePath(os.path.realpath(path))
        real_roots = self.real_roots or self.roots
        return [
            order_key(root, real.relative_to(at).as_posix())
            for root, at in zip(self.roots, real_roots, strict=True)
            if real.is_relative_to(at)
        ]
