"""Answer from an earlier completion: when the user types through it, deletes back into it, or asks again.

A completion answers every cursor between where it was generated and its own end, as long as the text around is the
same: the typed part is cut off, the rest is the answer, and the engine is not asked. Several are kept for each
document, because users type, delete and type again. Texts are compared by length and hash, so that a kept completion
does not keep a copy of the document.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from indexer.model import Cursor

KEPT = 16  # completions, of all documents together
FRESH = 60.0  # seconds; a completion may depend on other files, which change

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a completion was generated; `key` is what else its text depends on."""

    document: str
    length: int
    prefix: int
    suffix: int
    key: object


class Reuse(Generic[T]):
    """The last completions (any value `T`) by the cursor they were generated at."""

    def __init__(self, kept: int = KEPT, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept = kept
        self._clock = clock
        self._texts: OrderedDict[_Origin, tuple[str, T, float]] = OrderedDict()

    def put(self, document: str, cursor: Cursor, key: object, text: str, value: T) -> None:
        """Keep `text`, possibly empty, as generated at `cursor`."""
        origin = _Origin(document, len(cursor.prefix), hash(cursor.prefix), hash(cursor.suffix), key)
        self._texts[origin] = (text, value, self._clock())
        self._texts.move_to_end(origin)
        if len(self._texts) > self._kept:
            self._texts.popitem(last=False)

    def find(self, document: str, cursor: Cursor, key: object) -> tuple[str, T] | None:
        """Return the rest at `cursor` of the newest kept text that fits, and its value; None when none fits.

        At the end of a text nothing is left, and what comes next is not known: None.
        """
        suffix, now = hash(cursor.suffix), self._clock()
        for origin, (text, value, made) in reversed(self._texts.items()):
            if (origin.document, origin.suffix, origin.key) != (document, suffix, key) or now - made > FRESH:
                continue
            typed = cursor.prefix[origin.length :]
            if len(cursor.prefix) < origin.length or not text.startswith(typed) or (typed and typed == text):
                continue
            if hash(cursor.prefix[: origin.length]) == origin.prefix:
                return text[len(typed) :], value
        return None

    def forget(self, document: str) -> None:
        """Drop what is kept for a closed document."""
        for origin in [origin for origin in self._texts if origin.document == document]:
            del self._texts[origin]
