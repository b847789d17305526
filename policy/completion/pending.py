"""A completion in progress, separate from the requests that wait for it.

While a completion is generated, the user often types the beginning of its text. The newer request then joins the
pending completion and gets the rest of the text. The generation is cancelled only when the typed text differs from the
generated text. Editors often cancel a request just before they send the next one. So when no request waits any more,
the generation continues in the background for a moment.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from indexer.model import Cursor
from policy.engine.messages import Urgency
from policy.errors import RepoformerError

log = logging.getLogger(__name__)

LINGER = 0.25  # seconds for which a generation continues in the background after its last request was cancelled

T = TypeVar("T")


class PendingCompletion(Generic[T]):
    """One completion (a value of any type `T`) in progress at `cursor`.

    `key` is everything else that its text depends on.

    `make` gets this object, and calls `report` with the whole text so far each time it grows.
    """

    def __init__(
        self,
        cursor: Cursor,
        key: object,
        make: Callable[[PendingCompletion[T]], Coroutine[Any, Any, T]],
        *,
        background: bool = False,
    ) -> None:
        self.cursor = cursor
        self.urgency = Urgency(background=background)
        self._key = key
        self._text = ""
        self._waiting = 0
        self._changed = asyncio.Event()
        self._end: asyncio.TimerHandle | None = None
        self._task = asyncio.create_task(make(self))
        self._task.add_done_callback(self._finish)

    @property
    def finished(self) -> bool:
        """Whether the completion has succeeded, failed or been cancelled."""
        return self._task.done()

    @property
    def awaited(self) -> bool:
        """Whether a request waits for the completion."""
        return self._waiting > 0

    def report(self, text: str) -> None:
        """Store the whole text so far."""
        self._text = text
        self._changed.set()

    def typed(self, cursor: Cursor, key: object) -> str | None:
        """Return the text typed since the start, or None if a request at `cursor` cannot join.

        A request can join if one of the typed text and the text so far is the beginning of the other.
        """
        began = self.cursor
        if self.finished or key != self._key or cursor.suffix != began.suffix:
            return None
        if not cursor.prefix.startswith(began.prefix):
            return None
        typed = cursor.prefix[len(began.prefix) :]
        return typed if self._agrees(typed) else None

    async def wait(self, typed: str = "") -> T | None:
        """Return the completion, or None as soon as its text differs from `typed`.

        Raises the errors of `make`. Cancelling the wait does not cancel the completion.
        """
        self._waiting += 1
        self.urgency.change(background=False)
        if self._end is not None:
            self._end.cancel()
        try:
            while not self._task.done():
                if not self._agrees(typed):
                    return None
                self._changed.clear()
                await self._changed.wait()
            return self._task.result()
        finally:
            self._waiting -= 1
            if not self._waiting and not self._task.done():
                self.urgency.change(background=True)
                self._end = asyncio.get_running_loop().call_later(LINGER, self.cancel)

    def cancel(self) -> None:
        """Cancel the completion, even if requests wait for it."""
        self._task.cancel()

    async def cancel_and_wait(self) -> None:
        """Cancel the completion, and wait until it has ended."""
        self.cancel()
        await asyncio.wait({self._task})

    def _agrees(self, typed: str) -> bool:
        return self._text.startswith(typed) or typed.startswith(self._text)

    def _finish(self, task: asyncio.Task[T]) -> None:
        self._changed.set()
        if self._end is not None:
            self._end.cancel()
        if not self._waiting:  # otherwise the waiting request raises the error
            log_bug(task)


def log_bug(task: asyncio.Task[Any]) -> None:
    """Log the error of a background task, unless it is an expected failure (`RepoformerError`)."""
    if not task.cancelled() and (error := task.exception()) and not isinstance(error, RepoformerError):
        log.error("internal error in the background", exc_info=error)
