"""State kept from one keystroke to the next: the chunks in the prompt, and the decision for the cursor's line.

`PinnedChunks` keeps the chunks in the prompt as long as they are good enough. Each letter typed changes the ranking a
little. But when the retrieved text changes, the model has to evaluate that text, and everything after it in the prompt,
again: hundreds of tokens instead of a few. So the chunks stay in their order while the cursor stays in a region, the
search still finds all of them, and its best hit is one of them. When they have to change, the chunks that stay come
first, because the model has already evaluated them. The cost is that a chunk that would rank second is not read until
the best hit changes or the cursor moves to another region.

`LineDecisions` keeps a decision to the end of its line. A model that is asked at each letter decides to retrieve
somewhere on nearly every line, and each change of branch costs the evaluation of the tokens that the other branch
lacks. An abstention is reconsidered when a member or an argument begins, because a name from another file may be needed
there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from indexer.model import Chunk, Cursor, Hit
from indexer.words import last_lines
from policy.gating.decision import Decision

REGION = 20  # chunks stay pinned while the cursor moves by at most this many lines
_RECONSIDER_AFTER = re.compile(r"\.|->|::|\(")  # an abstention does not hold after one of these


@dataclass(frozen=True, slots=True)
class _Pinned:
    line: int
    hits: tuple[Hit, ...]


class PinnedChunks:
    """The chunks in the prompt of each document, with their scores in the search that found them."""

    def __init__(self) -> None:
        self._pinned: dict[str, _Pinned] = {}

    def at(self, document: str, cursor: Cursor) -> tuple[Hit, ...]:
        """Return the chunks pinned around `cursor`."""
        pinned = self._pinned.get(document)
        return pinned.hits if pinned is not None and abs(_line(cursor) - pinned.line) <= REGION else ()

    def choose(self, document: str, cursor: Cursor, hits: Sequence[Hit]) -> tuple[Hit, ...]:
        """Return the chunks for the prompt: the pinned chunks if they are good enough, else `hits`.

        `hits` is the result of a search, best first. Pinned chunks that are among the best hits come first.
        """
        pinned, found = self.at(document, cursor), {hit.chunk for hit in hits}
        if hits and hits[0].chunk in _chunks(pinned) and found.issuperset(_chunks(pinned)):
            return pinned
        wanted = _chunks(hits[: len(pinned)])
        staying = [hit for hit in pinned if hit.chunk in wanted]
        return (*staying, *(hit for hit in hits if hit.chunk not in _chunks(staying)))

    def pin(self, document: str, cursor: Cursor, hits: Sequence[Hit]) -> None:
        """Pin `hits`, possibly none, around `cursor`, and replace what was pinned in the document."""
        self._pinned[document] = _Pinned(_line(cursor), tuple(hits))

    def forget(self, document: str) -> None:
        """Delete the state of a closed document."""
        self._pinned.pop(document, None)


def _chunks(hits: Sequence[Hit]) -> list[Chunk]:
    return [hit.chunk for hit in hits]


@dataclass(frozen=True, slots=True)
class _LineContext:
    """What a decision depends on: all text outside the cursor's line, by length and hash, and a key."""

    above: tuple[int, int]
    suffix: int
    key: object


class LineDecisions:
    """The last decision in each document."""

    def __init__(self) -> None:
        # By document: the context, the text of the line up to the cursor, and the decision.
        self._decisions: dict[str, tuple[_LineContext, str, Decision]] = {}

    def find(self, document: str, cursor: Cursor, key: object) -> Decision | None:
        """Return the decision that is valid at `cursor`, or None. `key` is everything else that it depends on."""
        line, asked, decision = self._decisions.get(document, (None, "", None))
        if decision is None or line != _context_of(cursor, key):
            return None
        text = last_lines(cursor.prefix, 1)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(asked, text, strict=False)))
        return decision if decision.retrieve or not _RECONSIDER_AFTER.search(text, same) else None

    def put(self, document: str, cursor: Cursor, key: object, decision: Decision) -> None:
        """Store a decision made at `cursor`."""
        self._decisions[document] = _context_of(cursor, key), last_lines(cursor.prefix, 1), replace(decision, held=True)

    def forget(self, document: str) -> None:
        """Delete the state of a closed document."""
        self._decisions.pop(document, None)


def _context_of(cursor: Cursor, key: object) -> _LineContext:
    above = cursor.prefix[: cursor.prefix.rfind("\n") + 1]
    return _LineContext((len(above), hash(above)), hash(cursor.suffix), key)


def _line(cursor: Cursor) -> int:
    return cursor.prefix.count("\n")
