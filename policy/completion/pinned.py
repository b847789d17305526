"""State kept from one keystroke to the next: the chunks in the prompt, and the decision of the cursor's line.

`PinnedChunks` keeps the chunks in the prompt as long as they are good enough. Each letter typed changes the ranking a
little, and each change of the retrieved text makes the model evaluate that text, and everything after it in the prompt,
again: hundreds of tokens instead of a few. So the chunks of a region stay, in their order, while the search still finds
all of them and its best hit is one of them. When they have to change, the chunks that stay come first, where the model
has evaluated them already. The cost: a chunk that would rank second is not read until the best hit changes or the
cursor moves to another region.

`LineDecisions` keeps a decision to the end of its line. A model that is asked at each letter retrieves somewhere on
nearly every line, and each change of branch costs the evaluation of what the other branch lacks. An abstention is
reconsidered once a member or an argument begins, because that is where a name from another file may be needed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from indexer.model import Chunk, Cursor, Hit
from indexer.words import last_lines
from policy.gating.decision import Decision

REGION = 20  # lines above or below the cursor, within which chunks stay pinned
_RECONSIDER_AFTER = re.compile(r"\.|->|::|\(")  # an abstention does not hold after one of these


@dataclass(frozen=True, slots=True)
class _Pinned:
    line: int
    hits: tuple[Hit, ...]


class PinnedChunks:
    """The chunks in the prompt of each document, with the scores of the search that found them."""

    def __init__(self) -> None:
        self._pinned: dict[str, _Pinned] = {}

    def at(self, document: str, cursor: Cursor) -> tuple[Hit, ...]:
        """Return the chunks pinned around `cursor`."""
        pinned = self._pinned.get(document)
        return pinned.hits if pinned is not None and abs(_line(cursor) - pinned.line) <= REGION else ()

    def choose(self, document: str, cursor: Cursor, hits: Sequence[Hit]) -> tuple[Hit, ...]:
        """Return the chunks to put into the prompt: the pinned ones while they are good enough, else `hits`.

        `hits` are the search's, best first. Pinned chunks that are among the best of them come first.
        """
        pinned, found = self.at(document, cursor), {hit.chunk for hit in hits}
        if hits and hits[0].chunk in _chunks(pinned) and found.issuperset(_chunks(pinned)):
            return pinned
        wanted = _chunks(hits[: len(pinned)])
        staying = [hit for hit in pinned if hit.chunk in wanted]
        return (*staying, *(hit for hit in hits if hit.chunk not in _chunks(staying)))

    def pin(self, document: str, cursor: Cursor, hits: Sequence[Hit]) -> None:
        """Pin `hits`, possibly none, around `cursor`, instead of what was pinned in the document."""
        self._pinned[document] = _Pinned(_line(cursor), tuple(hits))

    def forget(self, document: str) -> None:
        """Drop what is kept for a closed document."""
        self._pinned.pop(document, None)


def _chunks(hits: Sequence[Hit]) -> list[Chunk]:
    return [hit.chunk for hit in hits]


@dataclass(frozen=True, slots=True)
class _LineContext:
    """All text but the cursor's line, by length and hash, and what else a decision depends on."""

    above: tuple[int, int]
    suffix: int
    key: object


class LineDecisions:
    """The last decision of each document."""

    def __init__(self) -> None:
        self._decisions: dict[str, tuple[_LineContext, str, Decision]] = {}  # the text is the line's, up to the cursor

    def find(self, document: str, cursor: Cursor, key: object) -> Decision | None:
        """Return the decision that holds at `cursor`. `key` is what else it depends on."""
        line, asked, decision = self._decisions.get(document, (None, "", None))
        if decision is None or line != _context_of(cursor, key):
            return None
        text = last_lines(cursor.prefix, 1)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(asked, text, strict=False)))
        return decision if decision.retrieve or not _RECONSIDER_AFTER.search(text, same) else None

    def put(self, document: str, cursor: Cursor, key: object, decision: Decision) -> None:
        """Keep a decision made at `cursor`."""
        self._decisions[document] = _context_of(cursor, key), last_lines(cursor.prefix, 1), replace(decision, held=True)

    def forget(self, document: str) -> None:
        """Drop what is kept for a closed document."""
        self._decisions.pop(document, None)


def _context_of(cursor: Cursor, key: object) -> _LineContext:
    above = cursor.prefix[: cursor.prefix.rfind("\n") + 1]
    return _LineContext((len(above), hash(above)), hash(cursor.suffix), key)


def _line(cursor: Cursor) -> int:
    return cursor.prefix.count("\n")
