"""Answer from an earlier completion if the user types its text, deletes a part of that text, or asks again.

A completion is valid at every cursor between the place where it was generated and the end of its text, as long as the
document around this text does not change. The answer is the part of the text that the user has not typed. The engine is
not used. Several completions are kept for each document, because users type, delete and type again. The texts of
documents are compared by length and hash, so that no copy of a document is kept.

Many editors close a bracket or quote that the user types. A completion stays valid at such a cursor, for example at
`f(‸)` after `f(a)` was generated. The answer then ends before the text that the editor has inserted.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from indexer.model import Cursor

MAX_COMPLETIONS = 16  # the maximum number of kept completions for all documents together
MAX_AGE_SECONDS = 60.0  # an older completion is not used, because the files that it depends on may have changed

_CLOSERS = {"(": ")", "[": "]", "{": "}", '"': '"', "'": "'", "`": "`"}
_QUOTES = frozenset("\"'`")

T = TypeVar("T")


class Found(NamedTuple, Generic[T]):
    """A completion that is valid at a cursor. `text` is what remains of its text after the `typed` first characters."""

    text: str
    value: T
    typed: int


@dataclass(frozen=True, slots=True)
class _Origin:
    """The cursor at which a completion was generated, and `key`, which is everything else that its text depends on.

    `length` is the length of the text before the cursor, and `prefix` and `suffix` are hashes.
    """

    document: str
    length: int
    prefix: int
    suffix: int
    key: object


class Reuse(Generic[T]):
    """The last `kept` completions (values of any type `T`). `clock` returns a time in seconds."""

    def __init__(self, kept: int = MAX_COMPLETIONS, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept = kept
        self._clock = clock
        self._texts: OrderedDict[_Origin, tuple[str, T, float]] = OrderedDict()

    def put(self, document: str, cursor: Cursor, key: object, text: str, value: T) -> None:
        """Store the completion `value`, which was generated at `cursor`, and its `text`, which may be empty."""
        origin = _Origin(document, len(cursor.prefix), hash(cursor.prefix), hash(cursor.suffix), key)
        self._texts[origin] = (text, value, self._clock())
        self._texts.move_to_end(origin)
        if len(self._texts) > self._kept:
            self._texts.popitem(last=False)

    def find(self, document: str, cursor: Cursor, key: object) -> Found[T] | None:
        """Return the newest completion that is valid at `cursor`, or None.

        A completion is not valid at the end of its text, because the model did not generate what follows.
        """
        suffix, now = hash(cursor.suffix), self._clock()
        for origin, (text, value, made) in reversed(self._texts.items()):
            if (origin.document, origin.key) != (document, key) or now - made > MAX_AGE_SECONDS:
                continue
            typed = cursor.prefix[origin.length :]
            if len(cursor.prefix) < origin.length or not text.startswith(typed) or (typed and typed == text):
                continue
            rest = text[len(typed) :]
            if suffix != origin.suffix:
                inserted = closers_of(typed)
                if not inserted or not cursor.suffix.startswith(inserted):
                    continue
                if hash(cursor.suffix[len(inserted) :]) != origin.suffix or not (rest := _before(inserted[0], rest)):
                    continue
            if hash(cursor.prefix[: origin.length]) == origin.prefix:
                return Found(rest, value, len(typed))
        return None

    def forget(self, document: str) -> None:
        """Delete the completions of a closed document."""
        for origin in [origin for origin in self._texts if origin.document == document]:
            del self._texts[origin]


def closers_of(typed: str) -> str:
    """Return the text with which an editor closes the brackets and quotes that `typed` leaves open."""
    closers = _open_after(typed, [])
    return "".join(reversed(closers))


def _before(closer: str, text: str) -> str:
    """Return the part of `text` before the bracket or quote that closes the one that `closer` closes."""
    opened = [closer]
    for end in range(len(text)):
        opened = _open_after(text[end], opened)
        if not opened:
            return text[:end]
    return text


def _open_after(text: str, opened: list[str]) -> list[str]:
    """Return the closers of what is open after `text`, outermost first, if those of `opened` are open before it."""
    opened = list(opened)
    for character in text:
        if opened and character == opened[-1]:
            opened.pop()
        elif character in _CLOSERS and not (opened and opened[-1] in _QUOTES):
            opened.append(_CLOSERS[character])
    return opened
