"""What became of a suggestion, by what is typed after it: accepted, typed over or dismissed.

Editors report acceptance alone. The next request in a document says the rest: its text goes on as the suggestion does,
or in another way, or the cursor is somewhere else. A suggestion that was on the screen for a moment only is not
counted: a person who types fast has not read it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from policy.gating.learned import Outcome

if TYPE_CHECKING:
    from indexer.model import Cursor
    from policy.completion.request import Completion, Request

READ = 0.5  # seconds that a suggestion was there before what is typed says something of it


def outcome(text: str, before: Cursor, now: Cursor) -> Outcome | None:
    """Return what became of `text`, suggested at `before`, if the cursor is at `now`; None where that is still open."""
    if not now.prefix.startswith(before.prefix) or not now.suffix.endswith(before.suffix.lstrip()):
        return "dismissed"
    typed = now.prefix[len(before.prefix) :]
    if not typed or (text.startswith(typed) and typed != text):
        return None
    return "accepted" if typed.startswith(text) else "typed over"


@dataclass(frozen=True, slots=True)
class _Offered:
    """A suggestion that is on the screen since `since` (seconds), and the probability with which it was to be kept."""

    number: int
    request: Request
    text: str
    p: float
    since: float


class Outcomes:
    """Settle each suggestion once. `learn` gets what became of it, and the probability with which it was to be kept."""

    def __init__(
        self, learn: Callable[[Request, Outcome, float], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._learn = learn
        self._clock = clock
        self._open: dict[str, _Offered] = {}

    def offered(self, number: int, request: Request, completion: Completion) -> None:
        """A suggestion is on its way to the screen. It takes the place of the document's one before it."""
        self._open.pop(request.document, None)
        if completion.text and (estimate := completion.estimate):
            self._open[request.document] = _Offered(number, request, completion.text, estimate.p, self._clock())

    def accepted(self, number: int) -> None:
        """A suggestion was accepted, or a part of it."""
        for offered in list(self._open.values()):
            if offered.number == number:
                self._settle(offered, "accepted")

    def requested(self, request: Request) -> None:
        """The next request of a document came."""
        if (offered := self._open.get(request.document)) is None:
            return
        became = outcome(offered.text, offered.request.cursor, request.cursor)
        if became == "accepted" or (became is not None and self._clock() - offered.since >= READ):
            self._settle(offered, became)
        elif became is not None:
            del self._open[request.document]

    def forget(self, document: str) -> None:
        """A document was closed."""
        self._open.pop(document, None)

    def _settle(self, offered: _Offered, became: Outcome) -> None:
        del self._open[offered.request.document]
        self._learn(offered.request, became, offered.p)
