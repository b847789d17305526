"""A completion in progress, separate from the requests that wait for it.

While a completion is generated, the user often types the beginning of its text. The next request then joins the pending
completion, and gets the rest of the text. If the typed text differs from the generated text, the request cannot join.
Editors often cancel a request just before they send the next one. So when no request waits for a completion any more,
the completion continues in the background for `LINGER` seconds before it is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from indexer.model import Cursor
from policy.engine.messages import Urgency
from policy.errors import Preempted, RepoformerError

log = logging.getLogger(__name__)

LINGER = 0.25  # seconds

T = TypeVar("T")


class PendingCompletion(Generic[T]):
    """A completion (a value of any type `T`) in progress at `cursor`.

    The text of the completion depends only on the cursor and on `key`. The coroutine function `make` makes the
    completion: it gets this object as its argument, and calls `report` each time the text grows.
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
        """Store `text`, the whole text that is generated so far."""
        self._text = text
        self._changed.set()

    def typed(self, cursor: Cursor, key: object) -> str | None:
        """Return the text that the user typed between this completion's cursor and `cursor`.

        Return None if a request at `cursor` cannot join this completion. It can join if the typed text is the beginning
        of the text that is generated so far, or if the generated text is the beginning of the typed text.
        """
        began = self.cursor
        if self.finished or key != self._key or cursor.suffix != began.suffix:
            return None
        if not cursor.prefix.startswith(began.prefix):
            return None
        typed = cursor.prefix[len(began.prefix) :]
        return typed if self._agrees(typed) else None

    async def wait(self, typed: str = "") -> T | None:
        """Wait for the completion and return it, or return None as soon as it contradicts `typed`.

        `typed` is the text that the user typed after this completion's cursor. The completion contradicts it if neither
        of the generated text and `typed` begins with the other.

        Raises the errors of `make`, and `Preempted` if the completion is cancelled. Cancelling the task that waits does
        not cancel the completion.
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
            if self._task.cancelled():
                raise Preempted("the completion was cancelled")
            return self._task.result()
        finally:
            self._waiting -= 1
            if not self._waiting and not self._task.done():
                self.urgency.change(background=True)
                self._end = asyncio.get_running_loop().call_later(LINGER, self.cancel)

    def cancel(self) -> None:
        """Cancel the completion immediately, even if requests wait for it."""
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
    """Log the error of a finished background task, unless the error is an expected failure (`RepoformerError`)."""
    if not task.cancelled() and (error := task.exception()) and not isinstance(error, RepoformerError):
        log.error("internal error in the background", exc_info=error)
