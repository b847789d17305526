"""What stays from one key to the next: the chunks in the prompt, and the decision that they belong there.

Of the chunks that were found, those stand in the prompt that stood there before, as long as they will do.
A ranking changes a little with every letter that is typed, and whatever changes in the retrieved text makes the model
read that text, and all that stands behind it, anew: hundreds of tokens in place of a few. So the chunks of a region
stay, in their order, while each of them is still found and the best that is found is one of them. When they have to
change, those that stay come first, where the model has read them already. The price is that a chunk that would have
become the second best is not read until the best changes or the cursor goes elsewhere.

A decision holds to the end of its line. Asked with every letter, the model retrieves somewhere on nearly every line,
and a line would be completed now with and now without what it was begun with; each change costs the reading of what
the other branch has missed. An abstention is asked for again once a member or an argument has begun: that is where a
name is needed that may be defined elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os.path import commonprefix

from indexer.model import Chunk, Cursor, Hit
from indexer.words import last_lines
from policy.gating.decision import Decision

REGION = 20  # lines up or down, within which a choice stands
_ASKS_ANEW = re.compile(r"\.|->|::|\(")  # what an abstention does not hold behind


@dataclass(frozen=True, slots=True)
class _Choice:
    line: int
    hits: tuple[Hit, ...]


class Sticky:
    """What stands in the prompt of each document, with the scores of the search that has found it."""

    def __init__(self) -> None:
        self._choices: dict[str, _Choice] = {}

    def standing(self, document: str, cursor: Cursor) -> tuple[Hit, ...]:
        """What stands in the prompt around `cursor`."""
        choice = self._choices.get(document)
        return choice.hits if choice is not None and abs(_line(cursor) - choice.line) <= REGION else ()

    def choose(self, document: str, cursor: Cursor, hits: Sequence[Hit]) -> tuple[Hit, ...]:
        """`hits` (best first) as they should be offered to the prompt: what stands, where that will do."""
        standing, found = self.standing(document, cursor), {hit.chunk for hit in hits}
        if hits and hits[0].chunk in _chunks(standing) and found.issuperset(_chunks(standing)):
            return standing
        wanted = _chunks(hits[: len(standing)])
        staying = [hit for hit in standing if hit.chunk in wanted]
        return (*staying, *(hit for hit in hits if hit.chunk not in _chunks(staying)))

    def stand(self, document: str, cursor: Cursor, hits: Sequence[Hit]) -> None:
        """From now on these stand in the prompt around `cursor`, or nothing does."""
        self._choices[document] = _Choice(_line(cursor), tuple(hits))

    def forget(self, document: str) -> None:
        """Drop what is remembered of a document."""
        self._choices.pop(document, None)


def _chunks(hits: Sequence[Hit]) -> list[Chunk]:
    return [hit.chunk for hit in hits]


@dataclass(frozen=True, slots=True)
class _Line:
    """Everything but the cursor's line, by length and hash, and what else a decision depends on."""

    above: tuple[int, int]
    suffix: int
    key: object


class Held:
    """The last decision of each document."""

    def __init__(self) -> None:
        self._decisions: dict[str, tuple[_Line, str, Decision]] = {}  # and the line's text so far

    def find(self, document: str, cursor: Cursor, key: object) -> Decision | None:
        """The decision that holds at `cursor`; `key` is what else it depends on."""
        line, asked, decision = self._decisions.get(document, (None, "", None))
        if decision is None or line != _line_of(cursor, key):
            return None
        text = last_lines(cursor.prefix, 1)
        same = len(commonprefix((asked, text)))
        return decision if decision.retrieve or not _ASKS_ANEW.search(text, same) else None

    def put(self, document: str, cursor: Cursor, key: object, decision: Decision) -> None:
        """Remember a decision made at `cursor`."""
        self._decisions[document] = _line_of(cursor, key), last_lines(cursor.prefix, 1), replace(decision, held=True)

    def forget(self, document: str) -> None:
        """Drop what is remembered of a document."""
        self._decisions.pop(document, None)


def _line_of(cursor: Cursor, key: object) -> _Line:
    above = cursor.prefix[: cursor.prefix.rfind("\n") + 1]
    return _Line((len(above), hash(above)), hash(cursor.suffix), key)


def _line(cursor: Cursor) -> int:
    return cursor.prefix.count("\n")
