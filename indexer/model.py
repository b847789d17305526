"""The values at the interface of the indexer: a cursor goes in, hits (chunks with a score) come out.

They are immutable, so that threads can share a snapshot without a lock. Lines are one-based, and ranges include both
ends. Texts are `str`. Paths in prompts are POSIX and relative to their workspace folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

ChunkKind = Literal["imports", "function", "class", "block", "window"]

_SURROGATE = re.compile("[\ud800-\udfff]")


def shown_path(path: str) -> str:
    """Return a path as text that UTF-8 can encode, for prompts, JSON and messages.

    If a file name is not UTF-8, Python represents its invalid bytes as surrogates. This function replaces each
    surrogate by the replacement character.
    """
    return path if path.isascii() else _SURROGATE.sub("\ufffd", path)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in a file, as the text before it and the text after it (*prefix* and *suffix* in fill-in-the-middle).

    `path` is absolute, or empty for a buffer that was never saved. `language` is an id of `indexer.languages`
    ("python", "typescript", …), or "" if the language is unknown. `private` says why the text must stay on this
    machine and must not be written to its disk, and is empty otherwise (`indexer.rules.why_private`).
    """

    path: str
    prefix: str
    suffix: str
    language: str
    private: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one file: `text` is lines `start_line` to `end_line` of the file `path` (relative to `root`).

    If the first line of the chunk does not show the scope, `header` does: it has the signatures of the functions and
    classes that contain the chunk. Otherwise `header` is empty. `symbols` has the names that the chunk defines.
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
    """A chunk that a search found, and its Jaccard similarity in [0, 1] to the lines before the cursor (the query).

    The order of hits is the retriever's ranking, which can differ from the order by `score`. Every retriever computes
    `score` in the same way, so that a threshold on the score has the same meaning for all of them.
    """

    chunk: Chunk
    score: float


class Retriever(Protocol):
    """Finds the chunks of a workspace that a completion at a cursor is likely to need."""

    def search(self, cursor: Cursor, k: int) -> tuple[Hit, ...]:
        """Return up to `k` hits, best first, none of them from the cursor's own file."""
        ...
