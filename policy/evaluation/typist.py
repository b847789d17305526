"""Simulate a typist, to count the characters that a user accepts per request.

The typist types exactly the truth. If a whole suggestion is right, the typist accepts it. If only the first lines of a
suggestion are right, the typist accepts these lines. Otherwise, the typist types to the end of the word, and the next
request follows. This simulation is crude but treats all policies equally.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from indexer.model import Cursor

_STEP = re.compile(r"\s*(?:\w+|[^\w\s]+)\s?|\s+")
MAX_REQUESTS = 12

Suggest = Callable[[Cursor], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class TypingSession:
    """The result of typing one blank.

    `wanted` characters were typed or accepted; `accepted` of these came from suggestions. Of the `requests` requests,
    `shown` returned a suggestion.
    """

    requests: int
    shown: int
    accepted: int
    wanted: int


async def type_out(cursor: Cursor, truth: str, suggest: Suggest) -> TypingSession:
    """Type `truth` at `cursor`, with a request before each word, but with at most `MAX_REQUESTS` requests."""
    done = requests = shown = accepted = 0
    while done < len(truth) and requests < MAX_REQUESTS:
        suggestion = await suggest(replace(cursor, prefix=cursor.prefix + truth[:done]))
        requests += 1
        shown += bool(suggestion)
        used = usable(suggestion, truth[done:])
        accepted += used
        done += used or next_step(truth[done:])
    return TypingSession(requests, shown, accepted, done)


def usable(suggestion: str, rest: str) -> int:
    """Return how many characters of a suggestion the typist accepts: all, or those of its first lines that are right.

    `rest` is the part of the truth that is not typed yet.
    """
    while suggestion:
        if rest.startswith(suggestion) and suggestion.strip():
            return len(suggestion)
        suggestion = suggestion[: max(0, suggestion.rfind("\n"))]
    return 0


def next_step(rest: str) -> int:
    """Return how many characters of `rest` the typist types before the next request: a word, or punctuation."""
    match = _STEP.match(rest)
    return match.end() if match else 1
