"""Keep state between keystrokes: the chunks in the prompt, and the decision for the cursor's line.

`PinnedChunks` keeps chunks in the prompt as long as they are good enough. Each typed letter changes the ranking of the
chunks a little. But if the chunks in the prompt change, the model has to evaluate hundreds of tokens instead of a few:
the chunks, and everything after them. So the same chunks stay, in the same order, while three conditions hold: the
cursor stays near the line where they were pinned, a search still finds all of them, and its best hit is one of them. If
some chunks have to be replaced, the others come first in the prompt, because the model has already evaluated them. The
cost is that a new chunk that ranks second is not used until the best hit changes or the cursor moves away.

`LineDecisions` keeps a decision until the end of its line. If the model made a new decision after each letter, it would
retrieve at some letter of nearly every line, and each change between the branches costs the evaluation of many tokens.
An abstention is reconsidered where a member or an argument begins, because the code may need a name from another file
there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from indexer.model import Chunk, Cursor, Hit
from indexer.words import last_lines
from policy.common_prefix import common_prefix
from policy.gating.decision import Decision

REGION = 20  # chunks stay pinned while the cursor is at most this number of lines away from where they were pinned
_RECONSIDER_AFTER = re.compile(r"\.|->|::|\(")  # an abstention is reconsidered after each of these tokens


@dataclass(frozen=True, slots=True)
class _Pinned:
    line: int
    hits: tuple[Hit, ...]


class PinnedChunks:
    """The pinned chunks of each document, with their scores in the search that found them."""

    def __init__(self) -> None:
        self._pinned: dict[str, _Pinned] = {}

    def at(self, document: str, cursor: Cursor) -> tuple[Hit, ...]:
        """Return the chunks that are pinned near `cursor`, or () if there are none."""
        pinned = self._pinned.get(document)
        return pinned.hits if pinned is not None and abs(_line(cursor) - pinned.line) <= REGION else ()

    def choose(self, document: str, cursor: Cursor, hits: Sequence[Hit]) -> tuple[Hit, ...]:
        """Return the chunks for the prompt: the pinned chunks if they are good enough, otherwise `hits`.

        `hits` is the result of a search, best first. If it is returned, pinned chunks among the best hits come first.
        """
        pinned, found = self.at(document, cursor), {hit.chunk for hit in hits}
        if hits and hits[0].chunk in _chunks(pinned) and found.issuperset(_chunks(pinned)):
            return pinned
        wanted = _chunks(hits[: len(pinned)])
        staying = [hit for hit in pinned if hit.chunk in wanted]
        return (*staying, *(hit for hit in hits if hit.chunk not in _chunks(staying)))

    def pin(self, document: str, cursor: Cursor, hits: Sequence[Hit]) -> None:
        """Pin `hits` at `cursor` instead of the document's pinned chunks. If `hits` is empty, no chunk stays pinned."""
        self._pinned[document] = _Pinned(_line(cursor), tuple(hits))

    def forget(self, document: str) -> None:
        """Delete the pinned chunks of a closed document."""
        self._pinned.pop(document, None)


def _chunks(hits: Sequence[Hit]) -> list[Chunk]:
    return [hit.chunk for hit in hits]


@dataclass(frozen=True, slots=True)
class _LineContext:
    """What a decision depends on, except the part of its line before the cursor.

    `above` has the length and the hash of the text above the line. `suffix` is the hash of the text after the cursor.
    `key` is anything else that the decision depends on, such as the settings.
    """

    above: tuple[int, int]
    suffix: int
    key: object


class LineDecisions:
    """The last decision in each document."""

    def __init__(self) -> None:
        # For each document: the context, the text of the line up to the cursor, and the decision.
        self._decisions: dict[str, tuple[_LineContext, str, Decision]] = {}

    def find(self, document: str, cursor: Cursor, key: object) -> Decision | None:
        """Return the decision that still holds at `cursor`, or None. It holds only if `key` is the same as in `put`."""
        line, asked, decision = self._decisions.get(document, (None, "", None))
        if decision is None or line != _context_of(cursor, key):
            return None
        text = last_lines(cursor.prefix, 1)
        typed = _RECONSIDER_AFTER.search(text, common_prefix(asked, text))
        return decision if decision.retrieve or not typed else None

    def put(self, document: str, cursor: Cursor, key: object, decision: Decision) -> None:
        """Store the decision that was made at `cursor`.

        `key` is anything else that the decision depends on, such as the settings.
        """
        self._decisions[document] = _context_of(cursor, key), last_lines(cursor.prefix, 1), replace(decision, held=True)

    def forget(self, document: str) -> None:
        """Delete the decision of a closed document."""
        self._decisions.pop(document, None)


def _context_of(cursor: Cursor, key: object) -> _LineContext:
    above = cursor.prefix[: cursor.prefix.rfind("\n") + 1]
    return _LineContext((len(above), hash(above)), hash(cursor.suffix), key)


def _line(cursor: Cursor) -> int:
    return cursor.prefix.count("\n")
