"""Record when the server handles each message, and when each stage of the work on it runs.

`repoformer-lsp serve --trace FILE` writes the file in the *Chrome trace format*: the JSON array of Google's *Trace
Event Format*. Perfetto, speedscope and `chrome://tracing` show it as a flame chart (`docs/serving.md`). The bracket
that closes the array is optional in this format, so a trace is valid after every event, also if the server is killed. A
trace contains no code, no prompts and no names of files.

Viewers require that the spans of one thread are nested. The server's tasks are not, because a completion can outlive
its request, and because a search runs while the model reads. So the trace has *lanes*, which viewers show as threads. A
span is in the lane of the span that started it, if that span is the innermost open one there. Otherwise, it is in the
first lane that has no open span. A span that is open when the span around it ends continues in another lane.

The worker process has its own spans. It does not write a file, but collects the spans of a request that asks for them,
and sends them with its answers. `add` puts them into the span of that request. The clocks of the two processes agree,
because `time.perf_counter` is system-wide.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TextIO

log = logging.getLogger(__name__)


class Recorded(NamedTuple):
    """A span that has ended. The times are in microseconds of `time.perf_counter`."""

    name: str
    begin: int
    end: int


class _Open:
    """A span in the file that has not ended. It is in lane `lane` since the time `since`."""

    def __init__(self, name: str, message: int) -> None:
        self.name = name
        self.message = message
        self.lane = self.since = 0


_file: TextIO | None = None
_collected: list[Recorded] | None = None
_lanes: list[list[_Open]] = []  # the open spans of each lane, outermost first
_messages = count(1)
_innermost: ContextVar[_Open | None] = ContextVar("_innermost", default=None)


def start(path: Path) -> None:
    """Write all later events of this process to `path`. Raises `OSError` if the file cannot be created."""
    global _file
    stop()
    _file = path.open("w", encoding="utf-8", buffering=1)
    _file.write("[\n")
    _lanes.clear()


def stop() -> None:
    """Close the trace file, if there is one."""
    global _file
    file, _file = _file, None
    if file is not None:
        file.close()


def writing() -> bool:
    """Return whether this process writes a trace."""
    return _file is not None


def collect(since: int | None, waiting: str) -> None:
    """Collect later spans of this process for `collected`, and a span `waiting` from the time `since` until now.

    If `since` is None, collect no spans.
    """
    global _collected
    _collected = None if since is None else [Recorded(waiting, since, now())]


def collected() -> list[Recorded]:
    """Return the spans that were collected since the last call."""
    global _collected
    if not _collected:
        return []
    taken, _collected = _collected, []
    return taken


def now() -> int:
    """Return the time in microseconds, on the clock of the trace."""
    return time.perf_counter_ns() // 1000


@contextlib.contextmanager
def span(name: str) -> Iterator[None]:
    """Record the time inside the `with` block as a stage of the work on the current message."""
    if _collected is not None:
        begin = now()
        try:
            yield
        finally:
            if _collected is not None:
                _collected.append(Recorded(name, begin, now()))
    elif _file is not None:
        parent = _innermost.get()
        with _inside(_Open(name, parent.message if parent else 0), parent):
            yield
    else:
        yield


@contextlib.contextmanager
def message() -> Iterator[None]:
    """Record the time inside the `with` block as the handling of a new message. Tasks that it starts belong to it."""
    if _file is None:
        yield
    else:
        with _inside(_Open("message", next(_messages)), None):
            yield


def mark(name: str, **values: float | str) -> None:
    """Record that something happened now in the current span. `values` are shown with it, and must contain no code."""
    if _file is not None:
        inner = _innermost.get()
        _write("i", name, inner.lane if inner else 0, now(), s="t", args=values)


def add(spans: Iterable[Recorded]) -> None:
    """Record spans of the worker process inside the current span, which has to contain them."""
    if _file is not None and (inner := _innermost.get()) is not None:
        for name, begin, end in spans:
            begin = max(begin, inner.since)
            if begin < end:
                _write("X", name, inner.lane, begin, dur=end - begin, args={"message": inner.message})


def traced(name: str, handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return `handler`, or if this process writes a trace, a function that records each call as a span."""
    if _file is None:
        return handler
    if inspect.iscoroutinefunction(handler):

        @functools.wraps(handler)
        async def traced_handler(*arguments: Any) -> Any:
            with span(name):
                return await handler(*arguments)

    else:

        @functools.wraps(handler)
        def traced_handler(*arguments: Any) -> Any:
            with span(name):
                return handler(*arguments)

    return traced_handler


@contextlib.contextmanager
def _inside(opened: _Open, parent: _Open | None) -> Iterator[None]:
    _innermost.set(opened)
    _begin(opened, parent)
    try:
        yield
    finally:
        _end(opened)
        # No token, because an asynchronous generator may end in another context than the one in which it started.
        _innermost.set(parent)


def _begin(opened: _Open, parent: _Open | None = None) -> None:
    """Open a span in the lane of `parent`, if that is the innermost open span there, or in a lane without spans."""
    if parent is not None and _lanes[parent.lane][-1:] == [parent]:
        opened.lane = parent.lane
    else:
        opened.lane = next((number for number, lane in enumerate(_lanes) if not lane), len(_lanes))
        if opened.lane == len(_lanes):
            _lanes.append([])
            _write("M", "thread_name", opened.lane, now(), args={"name": f"lane {opened.lane + 1}"})
    _lanes[opened.lane].append(opened)
    opened.since = now()
    _write("B", opened.name, opened.lane, opened.since, args={"message": opened.message})


def _end(opened: _Open) -> None:
    """Close a span. The spans inside it that are still open continue in another lane."""
    lane = _lanes[opened.lane]
    at = lane.index(opened)
    inner = lane[at + 1 :]
    for each in reversed(lane[at:]):
        _write("E", each.name, opened.lane, now())
    del lane[at:]
    parent: _Open | None = None
    for each in inner:
        _begin(each, parent)
        parent = each


def _write(phase: str, name: str, lane: int, at: int, **values: Any) -> None:
    if _file is None:
        return
    event = {"name": name, "cat": "server", "ph": phase, "pid": os.getpid(), "tid": lane + 1, "ts": at, **values}
    try:
        _file.write(json.dumps(event) + ",\n")
    except OSError as error:  # for example, the disk is full
        log.warning("the trace ends here: %s", error)
        with contextlib.suppress(OSError):
            stop()
