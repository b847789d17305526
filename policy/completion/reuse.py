"""Answers that are there already: typing through a completion, deleting back into it, asking again.

A completion holds for every cursor between where it was generated and its own end, as long as the text around is the
same: what has been typed of it is cut off, the rest is the answer, and the engine is not asked. A few are kept a
document, because people type, delete and type again. Text is compared by length and hash, so that remembering a
completion does not keep a copy of the document.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from indexer.model import Cursor

KEPT = 16  # completions, of all documents together
FRESH = 60.0  # seconds: other files change as well, and a completion may have been made of them

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a completion was generated; `key` is what else its text depends on."""

    document: str
    length: int
    prefix: int
    suffix: int
    key: object


class Reuse(Generic[T]):
    """The last completions (any value `T`) by the place they were generated at."""

    def __init__(self, kept: int = KEPT, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept = kept
        self._clock = clock
        self._texts: OrderedDict[_Place, tuple[str, T, float]] = OrderedDict()

    def put(self, document: str, cursor: Cursor, key: object, text: str, value: T) -> None:
        """Remember that `text` was generated at `cursor`, an empty one as well."""
        place = _Place(document, len(cursor.prefix), hash(cursor.prefix), hash(cursor.suffix), key)
        self._texts[place] = (text, value, self._clock())
        self._texts.move_to_end(place)
        if len(self._texts) > self._kept:
            self._texts.popitem(last=False)

    def find(self, document: str, cursor: Cursor, key: object) -> tuple[str, T] | None:
        """What is left at `cursor` of a remembered text, the newest that fits; None if there is none.

        At the very end of a text nothing is known of what comes next.
        """
        suffix, now = hash(cursor.suffix), self._clock()
        for place, (text, value, made) in reversed(self._texts.items()):
            if (place.document, place.suffix, place.key) != (document, suffix, key) or now - made > FRESH:
                continue
            typed = cursor.prefix[place.length :]
            if len(cursor.prefix) < place.length or not text.startswith(typed) or (typed and typed == text):
                continue
            if hash(cursor.prefix[: place.length]) == place.prefix:
                return text[len(typed) :], value
        return None

    def forget(self, document: str) -> None:
        """Drop what is remembered of a document."""
        for place in [place for place in self._texts if place.document == document]:
            del self._texts[place]
