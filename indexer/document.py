"""A file as the index stores it: its text once, and the positions of its chunks in it.

A chunk object is made only when a query finds the chunk. A million lines give about 90,000 chunks. If each of these
were a Python object with its own string, the objects would need more memory than the text itself, and every full
garbage collection would take long enough to delay typing. So a document is a small number of flat buffers, and so are
the `Terms` that the inverted index is built from. `Extract.to_bytes` converts both to plain bytes for other processes
and for the cache. The cache contains no pickles, because unpickling a manipulated file would run the code in it.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from indexer.model import Chunk, ChunkKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS: tuple[ChunkKind, ...] = ("imports", "function", "class", "block", "window")

# Columns of `Document.spans`.
START_LINE, END_LINE, START_BYTE, END_BYTE, KIND, WITHHELD = range(6)

_HEAD = struct.Struct("<6I")
_CHECKSUM = struct.Struct("<I")  # of all bytes after it


class DamagedRecord(ValueError):
    """The bytes are not a record that this version of the program wrote."""


@dataclass(frozen=True, slots=True)
class Document:
    """One file's text (UTF-8, LF line ends) and its chunks.

    `spans` is an int32 array of shape (chunks, 6); the constants above name its columns. `names` has one line of JSON
    for each chunk, [header, [symbol, …]], which is parsed only when the chunk is made.
    """

    root: str
    path: str
    text: bytes
    spans: NDArray[np.int32]
    names: bytes

    def __len__(self) -> int:
        return len(self.spans)

    def chunk(self, number: int) -> Chunk:
        """Make the chunk with this number. Chunks are numbered from 0 in the order of their lines."""
        return self._make(number, self.names.split(b"\n", number + 1)[number])

    def chunks(self) -> Iterator[Chunk]:
        """Make all chunks, in the order of their lines."""
        return map(self._make, range(len(self)), self.names.split(b"\n"))

    def _make(self, number: int, names: bytes) -> Chunk:
        start_line, end_line, start, end, kind, _ = (int(value) for value in self.spans[number])
        header, symbols = json.loads(names)
        text = self.text[start:end].decode("utf-8", "replace").rstrip()
        return Chunk(self.root, self.path, start_line, end_line, text, KINDS[kind], header, tuple(symbols))


@dataclass(frozen=True, slots=True)
class Terms:
    """The words and symbols of a document's chunks, from which the inverted index is built.

    All arrays are in the order of the chunks. `words` has the keys (`indexer.words.key`) of each chunk's distinct
    words, and `counts` has how often each word occurs in its chunk (at most 255). The words of chunk i end before index
    `word_ends[i]` of both arrays. `symbols` has the keys of the names that each chunk defines. Those of chunk i end
    before index `symbol_ends[i]`.
    """

    words: NDArray[np.uint64]
    counts: NDArray[np.uint8]
    word_ends: NDArray[np.int32]
    symbols: NDArray[np.uint64]
    symbol_ends: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Extract:
    """All data that the index stores for one file."""

    document: Document
    terms: Terms = field(repr=False)

    def to_bytes(self) -> bytes:
        """Return the fields as bytes, except the root and the path, which the caller uses as the key of the record."""
        document, terms = self.document, self.terms
        parts = (
            document.text,
            document.names,
            document.spans.astype("<i4").tobytes(),
            terms.words.astype("<u8").tobytes() + terms.counts.tobytes(),
            terms.symbols.astype("<u8").tobytes(),
        )
        ends = np.concatenate((terms.word_ends, terms.symbol_ends)).astype("<i4").tobytes()
        content = _HEAD.pack(len(document), *map(len, parts)) + b"".join(parts) + ends
        return _CHECKSUM.pack(zlib.crc32(content)) + content

    @classmethod
    def from_bytes(cls, root: str, path: str, record: bytes) -> Extract:
        """Return the extract from which `to_bytes` made `record`. Raises `DamagedRecord` if the bytes are invalid."""
        try:
            return cls._read(root, path, record)
        except (struct.error, ValueError) as error:
            raise DamagedRecord(f"{path}: {error}") from error

    @classmethod
    def _read(cls, root: str, path: str, record: bytes) -> Extract:
        (checksum,) = _CHECKSUM.unpack_from(record)
        if checksum != zlib.crc32(memoryview(record)[_CHECKSUM.size :]):
            raise ValueError("wrong checksum")
        chunks, *lengths = _HEAD.unpack_from(record, _CHECKSUM.size)
        at, parts = _CHECKSUM.size + _HEAD.size, []
        for length in (*lengths, 8 * chunks):
            parts.append(record[at : at + length])
            at += length
        if at != len(record):
            raise ValueError(f"{len(record)} bytes instead of {at}")
        text, names, spans, word_part, symbol_part, ends = parts
        count = len(word_part) // 9
        word_ends, symbol_ends = np.frombuffer(ends, "<i4").reshape(2, chunks)
        return cls(
            Document(root, path, text, np.frombuffer(spans, "<i4").reshape(chunks, 6), names),
            Terms(
                np.frombuffer(word_part, "<u8", count),
                np.frombuffer(word_part, np.uint8, count, offset=8 * count),
                word_ends,
                np.frombuffer(symbol_part, "<u8"),
                symbol_ends,
            ),
        )
