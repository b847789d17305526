"""From a file's text to what the index stores of it: a pure function, so that any process may run it."""

from __future__ import annotations

import json
from itertools import accumulate

import numpy as np

from indexer.arrays import join
from indexer.chunking import Chunking, spans
from indexer.document import KINDS, Document, Extract, Terms
from indexer.languages import Language
from indexer.secrets import holds_secret
from indexer.words import key, word_counts


def extract(text: str, language: Language | None, chunking: Chunking, *, root: str, path: str) -> Extract:
    """Cut a text into chunks and count their words.

    A chunk that holds something like a secret is stored, so that every line has a chunk, but marked as withheld: no
    search returns it.
    """
    text = text.replace("\r\n", "\n")
    cuts = spans(text, language, chunking)
    lines = text.split("\n")
    offsets = [0, *accumulate(len(line.encode("utf-8", "replace")) + 1 for line in lines)]
    words, counts, symbols, table = [], [], [], []
    for cut in cuts:
        body = "\n".join(lines[cut.start_line - 1 : cut.end_line])
        counted = word_counts(body)
        pairs = sorted((key(word), min(count, 255)) for word, count in counted.items())
        words.append(np.array([pair[0] for pair in pairs], np.uint64))
        counts.append(np.array([pair[1] for pair in pairs], np.uint8))
        symbols.append(np.array([key(symbol) for symbol in cut.symbols], np.uint64))
        start, end = offsets[cut.start_line - 1], offsets[cut.end_line]
        table.append((cut.start_line, cut.end_line, start, end, KINDS.index(cut.kind), holds_secret(body)))
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
