"""A completion on its way, apart from the requests that wait for it.

Somebody who types on while a completion is being made has often typed its beginning: the newer request joins, and
gets what is left. Only where what was typed differs from what was said is the generation given up. One that nobody
waits for any more, because the editor cancels before it asks again, goes on for a moment in the background, where it
is in nobody's way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from indexer.model import Cursor
from policy.engine import Urgency
from policy.errors import RepoformerError

log = logging.getLogger(__name__)

LINGER = 0.25  # seconds that a generation nobody waits for goes on, in the background

T = TypeVar("T")


class Flight(Generic[T]):
    """The making of one completion (of any type `T`) at `cursor`; `key` is what else it depends on.

    `make` is given the flight, to be called on by `say` with all of the text so far as it comes.
    """

    def __init__(
        self,
        cursor: Cursor,
        key: object,
        make: Callable[[Flight[T]], Coroutine[Any, Any, T]],
        *,
        background: bool = False,
    ) -> None:
        self.cursor = cursor
        self.urgency = Urgency(background=background)
        self._key = key
        self._text = ""
        self._waiting = 0
        self._news = asyncio.Event()
        self._end: asyncio.TimerHandle | None = None
        self._task = asyncio.create_task(make(self))
        self._task.add_done_callback(self._landed)

    @property
    def over(self) -> bool:
        """Whether it has come to an end, good or bad."""
        return self._task.done()

    @property
    def awaited(self) -> bool:
        """Whether a request waits for it."""
        return self._waiting > 0

    def say(self, text: str) -> None:
        """The text so far."""
        self._text = text
        self._news.set()

    def typed(self, cursor: Cursor, key: object) -> str | None:
        """What was typed since, where a request at `cursor` can join: as far as anybody knows, that is being said."""
        began = self.cursor
        if self.over or key != self._key or cursor.suffix != began.suffix or not cursor.prefix.startswith(began.prefix):
            return None
        typed = cursor.prefix[len(began.prefix) :]
        return typed if self._agrees(typed) else None

    async def wait(self, typed: str = "") -> T | None:
        """The completion, or None as soon as it says something else than `typed`.

        Raises what the making raised. Cancelling the wait leaves the flight to others, or to its end.
        """
        self._waiting += 1
        self.urgency.change(background=False)
        if self._end is not None:
            self._end.cancel()
        try:
            while not self._task.done():
                if not self._agrees(typed):
                    return None
                self._news.clear()
                await self._news.wait()
            return self._task.result()
        finally:
            self._waiting -= 1
            if not self._waiting and not self._task.done():
                self.urgency.change(background=True)
                self._end = asyncio.get_running_loop().call_later(LINGER, self.cancel)

    def cancel(self) -> None:
        """Give it up, whoever waits."""
        self._task.cancel()

    async def cancelled(self) -> None:
        """Give it up, and wait until it is."""
        self.cancel()
        await asyncio.wait({self._task})

    def _agrees(self, typed: str) -> bool:
        return self._text.startswith(typed) or typed.startswith(self._text)

    def _landed(self, task: asyncio.Task[T]) -> None:
        self._news.set()
        if self._end is not None:
            self._end.cancel()
        if not self._waiting:  # whoever waits raises it
            log_bug(task)


def log_bug(task: asyncio.Task[Any]) -> None:
    """What work that nobody waits for has ended with, unless that was to be expected."""
    if not task.cancelled() and (error := task.exception()) and not isinstance(error, RepoformerError):
        log.error("internal error in the background", exc_info=error)
