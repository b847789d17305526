"""A simulated typist: how many characters does a person get for a request?

The typist wants exactly the truth. They look at what is suggested and take it if it is right as far as it goes, whole
lines from its top if only those are right; else they type on to the end of the word and ask again. That is crude, and
it favours nobody: every policy meets the same person.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from indexer.model import Cursor

_STEP = re.compile(r"\s*(?:\w+|[^\w\s]+)\s?|\s+")
MOST_REQUESTS = 12

Suggest = Callable[[Cursor], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class TypingSession:
    """What typing one blank came to. `wanted` characters, of which `accepted` came out of suggestions."""

    requests: int
    shown: int
    accepted: int
    wanted: int


async def type_out(cursor: Cursor, truth: str, suggest: Suggest) -> TypingSession:
    """Type `truth` at `cursor`, asking before each word; at most `MOST_REQUESTS` times."""
    done = requests = shown = accepted = 0
    while done < len(truth) and requests < MOST_REQUESTS:
        suggestion = await suggest(replace(cursor, prefix=cursor.prefix + truth[:done]))
        requests += 1
        shown += bool(suggestion)
        taken = usable(suggestion, truth[done:])
        accepted += taken
        done += taken or next_step(truth[done:])
    return TypingSession(requests, shown, accepted, done)


def usable(suggestion: str, rest: str) -> int:
    """Characters of a suggestion that a person takes: all of it, or the whole lines at its top that are right."""
    while suggestion:
        if rest.startswith(suggestion) and suggestion.strip():
            return len(suggestion)
        suggestion = suggestion[: max(0, suggestion.rfind("\n"))]
    return 0


def next_step(rest: str) -> int:
    """Characters that are typed before the next request: to the end of a word or of a run of punctuation."""
    match = _STEP.match(rest)
    return match.end() if match else 1
