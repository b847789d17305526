"""An immutable part of the index: documents and the inverted index over their chunks, in flat numpy arrays.

A change does not modify a segment. The new version of a document becomes a small new segment, and a new mask of the old
segment (`MaskedSegment`) marks the chunks of the replaced version as dead. Search engines do the same. Small segments
are merged later (`indexer.segment_list`). So the time to publish a saved file depends on the size of the file and not
on the size of the workspace, and readers need no lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from indexer.arrays import cumsum, join, repeat
from indexer.document import WITHHELD, Document, Extract
from indexer.model import Chunk
from indexer.words import key

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Postings:
    """An inverted index: for the key of each word, the chunks that contain the word, and how often they contain it.

    `keys` is ascending. The chunks of key number i are a *run* in `chunks`, in ascending order, which ends before the
    index `ends[i]`. `counts` has the number of occurrences (at most 255) for each entry of `chunks`.
    """

    keys: NDArray[np.uint64]
    ends: NDArray[np.int64]
    chunks: NDArray[np.int32]
    counts: NDArray[np.uint8]

    @classmethod
    def build(cls, keys: NDArray[np.uint64], chunks: NDArray[np.int32], counts: NDArray[np.uint8]) -> Postings:
        """Sort (key, chunk, count) triples into runs. `chunks` must be ascending among equal keys.

        The sort is stable and so keeps that order. Stable sorting is also faster here, because it uses stretches that
        are already sorted, such as the words of a chunk or the postings of merged segments.
        """
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], len(ordered) > 0))
        return cls(ordered[last], last + 1, chunks[order], counts[order])

    def chunks_in(self, runs: Sequence[slice]) -> NDArray[np.int32]:
        """Return the chunks of some runs, concatenated."""
        return join([self.chunks[run] for run in runs], np.int32)

    def runs(self, keys: NDArray[np.uint64]) -> list[slice]:
        """Return the run of each key as a slice of `chunks`. An unknown key gives an empty slice."""
        if not len(self.keys):
            return [slice(0, 0)] * len(keys)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        known = self.keys[at] == keys
        starts = np.where(at > 0, self.ends[at - 1], 0)
        return [
            slice(start, end) if found else slice(0, 0)
            for start, end, found in zip(starts.tolist(), self.ends[at].tolist(), known.tolist(), strict=True)
        ]

    def spread(self, runs: Sequence[slice], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the value of each posting of `runs`. `values` has one value for each run."""
        return repeat(values, np.array([run.stop - run.start for run in runs], np.int64))

    def key_column(self) -> NDArray[np.uint64]:
        """Return the key of each posting."""
        return repeat(self.keys, np.diff(self.ends, prepend=0))


@dataclass(frozen=True, slots=True)
class Segment:
    """Documents and their inverted index. The chunks of all documents are numbered consecutively.

    `first[d]` is the number of the first chunk of document d; one more entry marks the end. `spans` has the rows of all
    `Document.spans`. `sizes` has the number of distinct words of each chunk. `order` has the order key of each document
    (`order_key`), which decides the order of equal scores and does not depend on the segment.
    """

    documents: tuple[Document, ...]
    first: NDArray[np.int32]
    spans: NDArray[np.int32]
    sizes: NDArray[np.int32]
    order: NDArray[np.uint64]
    words: Postings
    symbols: Postings

    @classmethod
    def build(cls, extracts: Sequence[Extract]) -> Segment:
        """Build a segment from extracts. Time and memory are linear in the number of words, except for one sort."""
        documents = tuple(extract.document for extract in extracts)
        terms = [extract.terms for extract in extracts]
        word_lengths = [np.diff(term.word_ends, prepend=0) for term in terms]
        symbol_lengths = [np.diff(term.symbol_ends, prepend=0) for term in terms]
        sizes = join(word_lengths, np.int32)
        numbers = np.arange(len(sizes), dtype=np.int32)
        # No search returns a withheld chunk, so its words do not count: they would make words look less rare.
        shown = join([document.spans[:, WITHHELD] for document in documents], np.int32) == 0
        kept = repeat(shown, sizes)
        symbols = join([term.symbols for term in terms], np.uint64)
        return cls._assemble(
            documents,
            sizes,
            Postings.build(
                join([term.words for term in terms], np.uint64)[kept],
                repeat(numbers, sizes)[kept],
                join([term.counts for term in terms], np.uint8)[kept],
            ),
            Postings.build(
                symbols,
                repeat(numbers, join(symbol_lengths, np.int32)),
                np.ones(len(symbols), np.uint8),
            ),
        )

    @classmethod
    def merge(cls, segments: Sequence[MaskedSegment]) -> Segment:
        """Merge segments and leave out their dead chunks. This uses only the postings and reads no text."""
        documents: list[Document] = []
        numbers, keep = [], []
        at = 0
        for masked in segments:
            pairs = zip(masked.segment.documents, masked.documents.tolist(), strict=True)
            documents.extend(document for document, alive in pairs if alive)
            kept = repeat(masked.documents, np.diff(masked.segment.first))
            keep.append(kept)
            numbers.append((cumsum(kept) - 1 + at).astype(np.int32))
            at += int(kept.sum())

        def joined(postings: Sequence[Postings]) -> Postings:
            masks = [kept[p.chunks] for p, kept in zip(postings, keep, strict=True)]
            return Postings.build(
                join([p.key_column()[m] for p, m in zip(postings, masks, strict=True)], np.uint64),
                join([n[p.chunks[m]] for p, m, n in zip(postings, masks, numbers, strict=True)], np.int32),
                join([p.counts[m] for p, m in zip(postings, masks, strict=True)], np.uint8),
            )

        return cls._assemble(
            tuple(documents),
            join([masked.segment.sizes[kept] for masked, kept in zip(segments, keep, strict=True)], np.int32),
            joined([masked.segment.words for masked in segments]),
            joined([masked.segment.symbols for masked in segments]),
        )

    @classmethod
    def _assemble(
        cls, documents: tuple[Document, ...], sizes: NDArray[np.int32], words: Postings, symbols: Postings
    ) -> Segment:
        spans = [document.spans for document in documents]
        return cls(
            documents,
            np.fromiter(accumulate(map(len, documents), initial=0), np.int32),
            np.concatenate(spans) if spans else np.empty((0, 6), np.int32),
            sizes,
            np.fromiter((order_of(document) for document in documents), np.uint64),
            words,
            symbols,
        )

    def __len__(self) -> int:
        return len(self.sizes)

    def document_of(self, chunk: int) -> int:
        """Return the number of the document that contains a chunk."""
        return int(np.searchsorted(self.first, chunk, side="right")) - 1

    def chunk(self, number: int) -> Chunk:
        """Make the chunk with this number."""
        document = self.document_of(number)
        return self.documents[document].chunk(number - int(self.first[document]))


@dataclass(frozen=True, slots=True)
class MaskedSegment:
    """A segment, and masks that say which parts of it are current.

    `documents` marks the documents that were neither replaced nor deleted. `live` marks the chunks that a search can
    return: those of a current document that are not withheld for a secret.
    """

    segment: Segment
    documents: NDArray[np.bool_]
    live: NDArray[np.bool_]

    @classmethod
    def of(cls, segment: Segment) -> MaskedSegment:
        """Return the segment with masks in which all documents are current, and all chunks are live except withheld."""
        return cls(segment, np.ones(len(segment.documents), np.bool_), segment.spans[:, WITHHELD] == 0)

    def without(self, documents: Iterable[int]) -> MaskedSegment:
        """Return the segment with these documents, given by number, marked as dead."""
        alive, live = self.documents.copy(), self.live.copy()
        first = self.segment.first
        for document in documents:
            alive[document] = False
            live[first[document] : first[document + 1]] = False
        return MaskedSegment(self.segment, alive, live)


def order_of(document: Document) -> int:
    """Return the order key of a document."""
    return order_key(document.root, document.path)


def order_key(root: str, path: str) -> int:
    """Return the number by which documents with equal scores are sorted: a hash, which is the same on every machine."""
    return key(f"{root}\0{path}")
