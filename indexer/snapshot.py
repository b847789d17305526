"""The index at one moment: immutable, shared between threads without a lock, and itself a `Retriever`.

A request takes whichever snapshot is current and keeps it; the writer meanwhile publishes newer ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from indexer.chunking import Chunking
from indexer.extract import extract
from indexer.languages import language_of
from indexer.model import Cursor, Hit
from indexer.retrieval import jaccard
from indexer.retrieval.ranking import Ranked, best
from indexer.segment import Part, Segment, place
from indexer.words import first_lines, keys, last_lines, words

NEAR_COPY = 0.9


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the index knew at `version`. `parts` hold the documents of all `roots`."""

    roots: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    version: int = 0
    query_lines: int = 20
    _counts: tuple[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        files = sum(int(part.documents.sum()) for part in self.parts)
        object.__setattr__(self, "_counts", (files, sum(int(part.live.sum()) for part in self.parts)))

    @classmethod
    def of(
        cls,
        files: Iterable[tuple[str, str]],
        chunking: Chunking | None = None,
        *,
        root: str = "/",
        query_lines: int = 20,
    ) -> Snapshot:
        """Index (path, text) pairs in memory: no disk, no threads; paths are relative and POSIX."""
        cut = chunking or Chunking()
        extracts = [extract(text, language_of(path), cut, root=root, path=path) for path, text in files]
        return cls((root,), (Part.of(Segment.build(extracts)),), query_lines=query_lines)

    @property
    def files(self) -> int:
        """How many files the index holds."""
        return self._counts[0]

    @property
    def chunks(self) -> int:
        """How many chunks a search can return."""
        return self._counts[1]

    def search(self, cursor: Cursor, k: int) -> tuple[Hit, ...]:
        """Return up to `k` chunks that a completion at the cursor is likely to need, best first.

        The query is the last lines before the cursor. Chunks of the cursor's own file are left out, and so are chunks
        nearly all of whose words stand around the cursor: they add nothing, and make a model repeat what is there.
        """
        text = last_lines(cursor.prefix, self.query_lines)
        around = words(last_lines(cursor.prefix, 2 * self.query_lines) + first_lines(cursor.suffix, self.query_lines))
        hits = []
        for ranked in self._ranked(text, 3 * k, self._places(cursor.path)):
            hit = self._hit(ranked)
            found = words(hit.chunk.text)
            if len(found & around) < NEAR_COPY * len(found):
                hits.append(hit)
        return _distinct(hits, k)

    def query(self, text: str, k: int, *, exclude: str = "") -> tuple[Hit, ...]:
        """Return the `k` chunks most similar to a text, best first.

        `exclude` is the path of a file that must not answer: absolute, or relative to a root.
        """
        return tuple(self._hit(ranked) for ranked in self._ranked(text, k, self._places(exclude)))

    def _ranked(self, text: str, k: int, excluded: Sequence[int]) -> list[Ranked]:
        query = keys(words(text))
        return best(self.parts, lambda segment: jaccard.similarities(segment, query), k, excluded)

    def _hit(self, ranked: Ranked) -> Hit:
        return Hit(self.parts[ranked.part].segment.chunk(ranked.chunk), ranked.score)

    def _places(self, path: str) -> list[int]:
        """Return the places a path may have in the index: one per root that it lies under."""
        if not path:
            return []
        if not Path(path).is_absolute():
            return [place(root, PurePath(path).as_posix()) for root in self.roots]
        pure = PurePath(path)
        return [place(root, pure.relative_to(root).as_posix()) for root in self.roots if pure.is_relative_to(root)]


def _distinct(hits: Iterable[Hit], k: int) -> tuple[Hit, ...]:
    """Keep the first of hits with the same text: copied code would only spend the prompt's budget twice."""
    seen: dict[str, Hit] = {}
    for hit in hits:
        seen.setdefault(hit.chunk.text, hit)
    return tuple(seen.values())[:k]
