"""Turn a file's text into an `Extract`, the data that the index stores for the file.

`extract` is a pure function, so any process can run it.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from indexer.arrays import join
from indexer.chunking import HEADER_COLUMNS, Chunking, spans
from indexer.document import KINDS, Document, Extract, Terms
from indexer.languages import Language
from indexer.secrets import secret_spans
from indexer.windows import Span
from indexer.words import key, word_counts

_MIN_PREFIX = 6  # characters; a shorter beginning of a secret does not reveal the secret


def extract(text: str, language: Language | None, chunking: Chunking, *, root: str, path: str) -> Extract:
    """Cut a text into chunks and count their words.

    A chunk that contains a part of a secret is stored, so that every line has a chunk, but the chunk is marked as
    withheld and no search returns it.
    """
    text = text.replace("\r\n", "\n")
    cuts = spans(text, language, chunking)
    lines = text.split("\n")
    offsets = [0, *accumulate(len(line.encode("utf-8", "replace")) + 1 for line in lines)]
    words, counts, symbols, table = [], [], [], []
    for cut, withheld in zip(cuts, _withheld(cuts, text, lines, language.id if language else ""), strict=True):
        body = "\n".join(lines[cut.start_line - 1 : cut.end_line])
        counted = word_counts(body)
        pairs = sorted((key(word), min(count, 255)) for word, count in counted.items())
        words.append(np.array([pair[0] for pair in pairs], np.uint64))
        counts.append(np.array([pair[1] for pair in pairs], np.uint8))
        symbols.append(np.array([key(symbol) for symbol in cut.symbols], np.uint64))
        start, end = offsets[cut.start_line - 1], offsets[cut.end_line]
        table.append((cut.start_line, cut.end_line, start, end, KINDS.index(cut.kind), withheld))
    return Extract(
        Document(
            root,
            path,
            text.encode("utf-8", "replace"),
            np.array(table, np.int32).reshape(-1, 6),
            "\n".join(json.dumps((cut.header, cut.symbols)) for cut in cuts).encode("ascii"),
        ),
        Terms(
            join(words, np.uint64),
            join(counts, np.uint8),
            np.fromiter(accumulate(map(len, words)), np.int32),
            join(symbols, np.uint64),
            np.fromiter(accumulate(map(len, symbols)), np.int32),
        ),
    )


def _withheld(cuts: Sequence[Span], text: str, lines: Sequence[str], language: str) -> list[bool]:
    """Return for each chunk whether a part of a secret is in its lines or in its header."""
    found = list(secret_spans(text, language))
    if not found:
        return [False] * len(cuts)
    ends = list(accumulate(len(line) + 1 for line in lines))

    def line_of(at: int) -> int:
        return bisect_right(ends, at) + 1

    lines_held = {line for start, end in found for line in range(line_of(start), line_of(end - 1) + 1)}
    texts = {text[start:end].partition("\n")[0] for start, end in found}
    showing = {header for header in {cut.header for cut in cuts} if any(_header_shows(header, each) for each in texts)}
    return [cut.header in showing or not lines_held.isdisjoint(range(cut.start_line, cut.end_line + 1)) for cut in cuts]


def _header_shows(header: str, secret: str) -> bool:
    """Return whether a header shows a secret or, at the end of a line that was cut, the beginning of a secret."""
    if secret[:_MIN_PREFIX] not in header:
        return False
    beginnings = tuple(secret[:length] for length in range(_MIN_PREFIX, min(len(secret), HEADER_COLUMNS)))
    return secret in header or any(line.endswith(beginnings) for line in header.split("\n"))
