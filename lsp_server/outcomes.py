"""Determine the outcome of each suggestion: accepted, typed over or dismissed.

Editors report only acceptance. The next request in the document shows the other outcomes. The user may have typed the
text of the suggestion (accepted) or another text (typed over), or the cursor may be elsewhere (dismissed). A suggestion
that was visible only for a moment is not counted, because a user who types fast has not read it.
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

MIN_VISIBLE = 0.5  # seconds; a suggestion that is typed over sooner counts as unseen


def outcome(text: str, before: Cursor, now: Cursor) -> Outcome | None:
    """Return the outcome of the suggestion `text`, or None if it is not known yet.

    `before` is the cursor at which the text was suggested, and `now` is the current cursor.
    """
    if not now.prefix.startswith(before.prefix) or not now.suffix.endswith(before.suffix.lstrip()):
        return "dismissed"
    typed = now.prefix[len(before.prefix) :]
    if not typed or (text.startswith(typed) and typed != text):
        return None
    return "accepted" if typed.startswith(text) else "typed over"


@dataclass(frozen=True, slots=True)
class _Offered:
    """A suggestion that has been visible since `since`, in seconds of the clock.

    `number` identifies the completion. `p` is the estimated probability that the user keeps `text`.
    """

    number: int
    request: Request
    text: str
    p: float
    since: float


class Outcomes:
    """Determines the outcome of each suggestion.

    `learn` is called once for each outcome, with the request, the outcome, and the estimated probability that the user
    keeps the text. `clock` returns a time in seconds.
    """

    def __init__(
        self, learn: Callable[[Request, Outcome, float], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._learn = learn
        self._clock = clock
        self._open: dict[str, _Offered] = {}

    def offered(self, number: int, request: Request, completion: Completion) -> None:
        """Store a suggestion that is sent to the editor, instead of the document's earlier suggestion."""
        self._open.pop(request.document, None)
        if completion.text and (estimate := completion.estimate):
            self._open[request.document] = _Offered(number, request, completion.text, estimate.p, self._clock())

    def accepted(self, number: int) -> None:
        """Record that the user accepted the suggestion `number`, or a part of it."""
        for offered in list(self._open.values()):
            if offered.number == number:
                self._settle(offered, "accepted")

    def requested(self, request: Request) -> None:
        """Determine the outcome of the document's suggestion from its next request."""
        if (offered := self._open.get(request.document)) is None:
            return
        became = outcome(offered.text, offered.request.cursor, request.cursor)
        if became == "accepted" or (became is not None and self._clock() - offered.since >= MIN_VISIBLE):
            self._settle(offered, became)
        elif became is not None:
            del self._open[request.document]

    def forget(self, document: str) -> None:
        """Delete the suggestion of a closed document."""
        self._open.pop(document, None)

    def _settle(self, offered: _Offered, became: Outcome) -> None:
        del self._open[offered.request.document]
        self._learn(offered.request, became, offered.p)
