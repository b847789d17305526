"""What became of a suggestion, by what is typed after it: accepted, typed over or dismissed.

Editors report acceptance alone. The next request in a document says the rest: its text goes on as the suggestion does,
or in another way, or the cursor is somewhere else. A suggestion that was on the screen for a moment only is not
counted: a person who types fast has not read it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from policy.gating.learned import Outcome

if TYPE_CHECKING:
    from indexer.model import Cursor
    from lsp_server.session import Record

READ = 0.5  # seconds that a suggestion was there before what is typed says something of it


def outcome(text: str, before: Cursor, now: Cursor) -> Outcome | None:
    """Return what became of `text`, suggested at `before`, if the cursor is at `now`; None where that is still open."""
    if not now.prefix.startswith(before.prefix) or not now.suffix.endswith(before.suffix.lstrip()):
        return "dismissed"
    typed = now.prefix[len(before.prefix) :]
    if not typed or (text.startswith(typed) and typed != text):
        return None
    return "accepted" if typed.startswith(text) else "typed over"


class Outcomes:
    """Settle each suggestion once. `learn` gets what became of it, and the probability with which it was to be kept."""

    def __init__(
        self, learn: Callable[[Record, Outcome, float], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._learn = learn
        self._clock = clock
        self._open: dict[str, tuple[Record, float]] = {}

    def offered(self, record: Record) -> None:
        """A suggestion is on its way to the screen. It takes the place of the document's one before it."""
        self._open.pop(record.uri, None)
        if record.completion.text and record.completion.estimate is not None:
            self._open[record.uri] = record, self._clock()

    def accepted(self, number: int) -> None:
        """A suggestion was accepted, or a part of it."""
        for record, _ in list(self._open.values()):
            if record.number == number:
                self._settle(record, "accepted")

    def requested(self, uri: str, now: Cursor) -> None:
        """The next request of a document came."""
        if uri not in self._open:
            return
        record, since = self._open[uri]
        became = outcome(record.completion.text, record.request.cursor, now)
        if became == "accepted" or (became is not None and self._clock() - since >= READ):
            self._settle(record, became)
        elif became is not None:
            del self._open[uri]

    def forget(self, uri: str) -> None:
        """A document was closed."""
        self._open.pop(uri, None)

    def _settle(self, record: Record, became: Outcome) -> None:
        del self._open[record.uri]
        assert record.completion.estimate is not None, "only suggestions with an estimate are kept"
        self._learn(record, became, record.completion.estimate.p)
