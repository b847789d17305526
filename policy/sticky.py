"""What stays from one key to the next: the chunks in the prompt, and the decision that they belong there.

Of the chunks that were found, those stand in the prompt that stood there before, as long as they will do.
A ranking changes a little with every letter that is typed, and whatever changes in the retrieved text makes the model
read that text, and all that stands behind it, anew: hundreds of tokens in place of a few. So the chunks of a region
stay, in their order, while each of them is still found and the best that is found is one of them. When they have to
change, those that stay come first, where the model has read them already. The price is that a chunk that would have
become the second best is not read until the best changes or the cursor goes elsewhere.

A request to retrieve holds to the end of the line. To ask again with every letter costs the reading of a prompt that is
not going to be generated from, and whatever the answer, the line would be completed now with and now without what it
was begun with. An abstention does not hold: to ask again costs nothing where the same prompt is generated from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from indexer.model import Chunk, Cursor, Hit
from policy.decision import Decision

REGION = 20  # lines up or down, within which a choice stands


@dataclass(frozen=True, slots=True)
class _Choice:
    line: int
    chunks: tuple[Chunk, ...]


class Sticky:
    """What stood in the last prompt of each document."""

    def __init__(self) -> None:
        self._choices: dict[str, _Choice] = {}

    def choose(self, document: str, cursor: Cursor, hits: tuple[Hit, ...]) -> tuple[Hit, ...]:
        """`hits` (best first) as they should be offered to the prompt.

        From then on that is what stands there, whether or not anybody waits until it is read: the next key would bring
        in still others otherwise, and nobody who types fast would ever see the end of it.
        """
        standing = self.standing(document, cursor)
        offered = _offered(standing, hits)
        if hits:
            chunks = tuple(hit.chunk for hit in offered[: len(standing) or None])
            self._choices[document] = _Choice(_line(cursor), chunks)
        return offered

    def standing(self, document: str, cursor: Cursor) -> tuple[Chunk, ...]:
        """What stands in the prompt around `cursor`; most of the time that is what `choose` chooses."""
        choice = self._choices.get(document)
        return choice.chunks if choice is not None and abs(_line(cursor) - choice.line) <= REGION else ()

    def stood(self, document: str, cursor: Cursor, chunks: tuple[Chunk, ...]) -> None:
        """These stood in the prompt at `cursor`, whole as they were found."""
        if chunks:
            self._choices[document] = _Choice(_line(cursor), chunks)

    def forget(self, document: str) -> None:
        """Drop what is remembered of a document."""
        self._choices.pop(document, None)


def _offered(standing: tuple[Chunk, ...], hits: tuple[Hit, ...]) -> tuple[Hit, ...]:
    found = {hit.chunk: hit for hit in hits}
    if hits and hits[0].chunk in standing and all(chunk in found for chunk in standing):
        return tuple(found[chunk] for chunk in standing)
    wanted = [hit.chunk for hit in hits[: len(standing)]]
    staying = [chunk for chunk in standing if chunk in wanted]
    return (*(found[chunk] for chunk in staying), *(hit for hit in hits if hit.chunk not in staying))


@dataclass(frozen=True, slots=True)
class _Line:
    """Everything but the cursor's line, by length and hash, and what else a decision depends on."""

    above: tuple[int, int]
    suffix: int
    key: object


class Held:
    """The last decision to retrieve of each document."""

    def __init__(self) -> None:
        self._decisions: dict[str, tuple[_Line, Decision]] = {}

    def find(self, document: str, cursor: Cursor, key: object) -> Decision | None:
        """The decision that holds at `cursor`; `key` is what else it depends on."""
        line, decision = self._decisions.get(document, (None, None))
        return decision if line == _line_of(cursor, key) else None

    def put(self, document: str, cursor: Cursor, key: object, decision: Decision) -> None:
        """Remember a decision made at `cursor`, or that there is none that would hold."""
        self._decisions.pop(document, None)
        if decision.retrieve:
            self._decisions[document] = _line_of(cursor, key), replace(decision, held=True)

    def forget(self, document: str) -> None:
        """Drop what is remembered of a document."""
        self._decisions.pop(document, None)


def _line_of(cursor: Cursor, key: object) -> _Line:
    above = cursor.prefix[: cursor.prefix.rfind("\n") + 1]
    return _Line((len(above), hash(above)), hash(cursor.suffix), key)


def _line(cursor: Cursor) -> int:
    return cursor.prefix.count("\n")
