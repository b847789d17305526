"""Answer from an earlier completion: when the user types its text, deletes back into it, or asks again.

A completion is valid at every cursor from where it was generated to its own end, as long as the text around is the
same: the typed part is removed, the rest is the answer, and the engine is not used. Several completions are kept for
each document, because users type, delete and type again. Documents are compared by length and hash, so that no copy of
a document is kept.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from indexer.model import Cursor

MAX_COMPLETIONS = 16  # of all documents together
MAX_AGE_SECONDS = 60.0  # a completion may depend on other files, which change

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Origin:
    """The cursor at which a completion was generated. `key` is everything else that its text depends on."""

    document: str
    length: int
    prefix: int
    suffix: int
    key: object


class Reuse(Generic[T]):
    """The last completions (any value `T`), by the cursor at which they were generated."""

    def __init__(self, kept: int = MAX_COMPLETIONS, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept = kept
        self._clock = clock
        self._texts: OrderedDict[_Origin, tuple[str, T, float]] = OrderedDict()

    def put(self, document: str, cursor: Cursor, key: object, text: str, value: T) -> None:
        """Store `text`, possibly empty, as generated at `cursor`."""
        origin = _Origin(document, len(cursor.prefix), hash(cursor.prefix), hash(cursor.suffix), key)
        self._texts[origin] = (text, value, self._clock())
        self._texts.move_to_end(origin)
        if len(self._texts) > self._kept:
            self._texts.popitem(last=False)

    def find(self, document: str, cursor: Cursor, key: object) -> tuple[str, T] | None:
        """Return the rest of the newest stored text that is valid at `cursor`, and its value.

        Return None if none is valid.

        A text is not valid at its own end, because what follows it is unknown.
        """
        suffix, now = hash(cursor.suffix), self._clock()
        for origin, (text, value, made) in reversed(self._texts.items()):
            if (origin.document, origin.suffix, origin.key) != (document, suffix, key) or now - made > MAX_AGE_SECONDS:
                continue
            typed = cursor.prefix[origin.length :]
            if len(cursor.prefix) < origin.length or not text.startswith(typed) or (typed and typed == text):
                continue
            if hash(cursor.prefix[: origin.length]) == origin.prefix:
                return text[len(typed) :], value
        return None

    def forget(self, document: str) -> None:
        """Delete the completions of a closed document."""
        for origin in [origin for origin in self._texts if origin.document == document]:
            del self._texts[origin]
