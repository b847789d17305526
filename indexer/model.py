"""The values that leave the indexer: a cursor goes in, hits (chunks with a score) come out.

They are plain and frozen so that a snapshot can be shared between threads without a lock. Lines are one-based and
inclusive, as people and compilers count them; texts are `str`; paths in prompts are POSIX and relative to their
workspace folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

ChunkKind = Literal["imports", "function", "class", "block", "window"]

_SURROGATE = re.compile("[\ud800-\udfff]")


def shown_path(path: str) -> str:
    """Return a path as text that can be encoded, for prompts, JSON and people.

    Python holds the bytes of a file name that are not UTF-8 as surrogates; each becomes the replacement character.
    """
    return path if path.isascii() else _SURROGATE.sub("\ufffd", path)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a file: what stands left and right of it (the *prefix* and *suffix* of fill-in-the-middle).

    `path` is absolute, or empty for a buffer that was never saved. `language` is an id of `indexer.languages`
    ("python", "typescript", …), or "" for text without a grammar.
    """

    path: str
    prefix: str
    suffix: str
    language: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one file that stands for itself.

    `header` names the scope of a part whose own first line does not (the qualified name and signature of the
    function or class it was cut from), and is empty otherwise. `symbols` are the names defined in the chunk.
    """

    root: str
    path: str
    start_line: int
    end_line: int
    text: str
    kind: ChunkKind
    header: str = ""
    symbols: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        """Absolute path of the file the chunk was cut from."""
        return Path(self.root, self.path)


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found, and its Jaccard similarity in [0, 1] with the lines before the cursor (the query).

    Hits come in the order of the retriever's own judgement, which need not be that of `score`: the score is the same
    measure whichever retriever ranks, so that a threshold on it (trial retrieval) keeps its meaning.
    """

    chunk: Chunk
    score: float


class Retriever(Protocol):
    """Finds the chunks of a workspace that a completion at a cursor is likely to need."""

    def search(self, cursor: Cursor, k: int) -> tuple[Hit, ...]:
        """Return up to `k` hits, best first, none of them from the cursor's own file."""
        ...
