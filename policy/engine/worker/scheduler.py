"""Whose turn it is: requests of several clients, one at a time.

The client that has waited longest since its last turn comes first, so that a window in which somebody types cannot
starve another; within a client, requests come in their order. A request marked `background` (evaluating ahead) runs
when nobody waits for anything, and gives way the moment somebody does.

One thread takes and ends turns; any other may put, cancel and leave.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from policy.engine.protocol import Message


class Client(Protocol):
    """Who asks. `name` is its alone."""

    name: str

    def send(self, message: Message) -> None:
        """Answer; returns at once, and does nothing where the client is gone."""


@dataclass(eq=False, slots=True)
class Turn:
    """A request on its way. `cancelled`: nobody wants its answer any more."""

    client: Client
    message: Message
    cancelled: bool = False

    @property
    def id(self) -> int:
        """The client's number for it."""
        number: int = self.message["id"]
        return number

    @property
    def background(self) -> bool:
        """Whether it gives way to everything else."""
        return bool(self.message.get("background"))


@dataclass(slots=True)
class _Line:
    """The requests of one client. Nothing joins the line of one that is `leaving`."""

    client: Client
    served_at: int = 0
    leaving: bool = False
    waiting: deque[Turn] = field(default_factory=deque)

    def first(self) -> Turn:
        """Whoever is next: the first request that is not in the background, if there is one."""
        return next((turn for turn in self.waiting if not turn.background), self.waiting[0])


class Turns:
    """The requests that wait and the one that runs. `abort(True)` is to stop what runs, `abort(False)` to unsay it."""

    def __init__(self, abort: Callable[[bool], None]) -> None:
        self._abort = abort
        self._news = threading.Condition()
        self._lines: dict[str, _Line] = {}
        self._running: Turn | None = None
        self._clock = count(1)

    def join(self, client: Client) -> None:
        """A client has come."""
        with self._news:
            self._lines[client.name] = _Line(client)

    def leave(self, client: Client, farewell: Message) -> int:
        """A client has gone, and its requests with it; `farewell` is performed in its name.

        Returns how many clients are left.
        """
        with self._news:
            if self._running is not None and self._running.client is client:
                self._stop(self._running)
            line = self._lines[client.name]
            line.leaving, line.waiting = True, deque([Turn(client, farewell)])
            self._news.notify()
            return sum(not line.leaving for line in self._lines.values())

    def put(self, client: Client, message: Message) -> None:
        """A client asks for something."""
        turn = Turn(client, message)
        with self._news:
            line = self._lines[client.name]
            if line.leaving:
                return
            line.waiting.append(turn)
            if self._running is not None and self._running.background and not turn.background:
                self._stop(self._running)
            self._news.notify()

    def cancel(self, client: Client, request: int) -> None:
        """A client no longer wants what it asked for; a request that has ended is none of it."""
        with self._news:
            if (running := self._running) is not None and running.client is client and running.id == request:
                self._stop(running)
            else:
                for turn in self._lines[client.name].waiting:
                    turn.cancelled |= turn.id == request

    def rank(self, client: Client, request: int, background: bool) -> None:
        """Whether somebody waits for a request has changed."""
        with self._news:
            running, waiting = self._running, [turn for line in self._lines.values() for turn in line.waiting]
            for turn in [*waiting, *([running] if running else [])]:
                if turn.client is client and turn.id == request:
                    turn.message["background"] = background
            if running and running.background and any(not turn.background for turn in waiting):
                self._stop(running)

    def take(self, timeout: float | None = None) -> Turn | None:
        """The next turn, which runs until `end`; None if there is none within `timeout` seconds."""
        with self._news:
            if not self._news.wait_for(lambda: any(line.waiting for line in self._lines.values()), timeout):
                return None
            line = min(
                (line for line in self._lines.values() if line.waiting),
                key=lambda line: (line.first().background, line.served_at),
            )
            turn = self._running = line.first()
            line.waiting.remove(turn)
            line.served_at = next(self._clock)
            if line.leaving:
                del self._lines[line.client.name]
            return turn

    def end(self) -> None:
        """The turn that was taken is over."""
        with self._news:
            self._running = None
            self._abort(False)

    def _stop(self, turn: Turn) -> None:
        turn.cancelled = True
        self._abort(True)
