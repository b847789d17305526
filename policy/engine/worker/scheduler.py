"""Choose the next request among those of several clients. One request runs at a time.

The next request is that of the client whose previous request is the oldest, so that one client with many requests
cannot starve another. The requests of a client run in their order, except that those in the background come last. A
`background` request (work in advance) runs only while no other request waits, and is aborted when one arrives.

Only one thread calls `take` and `finish`. All other methods may be called by any thread.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from policy import tracing
from policy.engine.protocol import Message


class EngineClient(Protocol):
    """A connected client, which receives the answers to its requests. `name` is unique."""

    name: str

    def send(self, message: Message) -> None:
        """Send an answer. Returns immediately, and does nothing if the client has disconnected."""


@dataclass(eq=False, slots=True)
class ScheduledRequest:
    """A request that is waiting or running. `cancelled` says that its answer is no longer needed.

    `arrived` is the time of its arrival in microseconds (`tracing.now`). `queue_ms` is the time in milliseconds from
    then until it was taken from the queue.
    """

    client: EngineClient
    message: Message
    cancelled: bool = False
    arrived: int = field(default_factory=tracing.now)
    queue_ms: float = 0.0

    @property
    def id(self) -> int:
        """The number that the client gave to the request."""
        number: int = self.message["id"]
        return number

    @property
    def background(self) -> bool:
        """Whether any request that is not in the background interrupts this one."""
        return bool(self.message.get("background"))


@dataclass(slots=True)
class _Queue:
    """The waiting requests of one client. A client that is `leaving` can add no more requests."""

    client: EngineClient
    served_at: int = 0
    leaving: bool = False
    waiting: deque[ScheduledRequest] = field(default_factory=deque)

    def first(self) -> ScheduledRequest:
        """Return the first request that is not in the background, or else the first request."""
        return next((request for request in self.waiting if not request.background), self.waiting[0])


class Scheduler:
    """The waiting requests of all clients, and the running request.

    `abort(True)` must stop the running request. `abort(False)` must let the next requests run.
    """

    def __init__(self, abort: Callable[[bool], None]) -> None:
        self._abort = abort
        self._changed = threading.Condition()
        self._queues: dict[str, _Queue] = {}
        self._running: ScheduledRequest | None = None
        self._clock = count(1)

    def add(self, client: EngineClient) -> None:
        """Add a client."""
        with self._changed:
            self._queues[client.name] = _Queue(client)

    def remove(self, client: EngineClient, last: Message) -> int:
        """Remove a client and its requests, but let `last` run for it. Return the number of clients that remain."""
        with self._changed:
            if self._running is not None and self._running.client is client:
                self._stop(self._running)
            queue = self._queues[client.name]
            queue.leaving, queue.waiting = True, deque([ScheduledRequest(client, last)])
            self._changed.notify()
            return sum(not queue.leaving for queue in self._queues.values())

    def put(self, client: EngineClient, message: Message) -> None:
        """Add a request of `client`. If it is not in the background, it interrupts a running background request."""
        request = ScheduledRequest(client, message)
        with self._changed:
            queue = self._queues[client.name]
            if queue.leaving:
                return
            queue.waiting.append(request)
            if self._running is not None and self._running.background and not request.background:
                self._stop(self._running)
            self._changed.notify()

    def cancel(self, client: EngineClient, number: int) -> None:
        """Cancel the client's request `number`. Do nothing if this request has ended."""
        with self._changed:
            if (running := self._running) is not None and running.client is client and running.id == number:
                self._stop(running)
            else:
                for request in self._queues[client.name].waiting:
                    request.cancelled |= request.id == number

    def rank(self, client: EngineClient, number: int, background: bool) -> None:
        """Move the client's request `number` into the background, or out of it. Do nothing if the request has ended."""
        with self._changed:
            running = self._running
            waiting = [request for queue in self._queues.values() for request in queue.waiting]
            for request in [*waiting, *([running] if running else [])]:
                if request.client is client and request.id == number:
                    request.message["background"] = background
            if running and running.background and any(not request.background for request in waiting):
                self._stop(running)

    def take(self, timeout: float | None = None) -> ScheduledRequest | None:
        """Return the next request, which then counts as running until `finish`. Return None after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: any(queue.waiting for queue in self._queues.values()), timeout):
                return None
            queue = min(
                (queue for queue in self._queues.values() if queue.waiting),
                key=lambda queue: (queue.first().background, queue.served_at),
            )
            request = self._running = queue.first()
            queue.waiting.remove(request)
            request.queue_ms = (tracing.now() - request.arrived) / 1e3
            queue.served_at = next(self._clock)
            if queue.leaving:
                del self._queues[queue.client.name]
            return request

    @property
    def waiting(self) -> bool:
        """Whether a request waits."""
        with self._changed:
            return any(queue.waiting for queue in self._queues.values())

    def finish(self) -> None:
        """Mark the running request as ended, and let the next requests run."""
        with self._changed:
            self._running = None
            self._abort(False)

    def _stop(self, request: ScheduledRequest) -> None:
        request.cancelled = True
        self._abort(True)
