"""Record when the server handles each message, and when each stage of the work on it runs.

`repoformer-lsp serve --trace FILE` writes the file. Perfetto (https://ui.perfetto.dev) and `chrome://tracing` show it.
The format is the JSON array of Google's *Trace Event Format*. The bracket that closes the array is optional there, so a
trace is valid after every event, also if the server is killed.

The work on one message of the editor is one track. Tasks that the handler of the message starts belong to its track,
also after the answer. Stages of a track can overlap, so the events are *async* events (`b`, `e` and `n`). A trace
contains no code, no prompts and no names of files.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from itertools import count
from pathlib import Path
from typing import Any, TextIO

log = logging.getLogger(__name__)

_file: TextIO | None = None
_tracks = count(1)
_track: ContextVar[int] = ContextVar("_track", default=0)  # 0: work that no message started


def start(path: Path) -> None:
    """Write all later events of this process to `path`. Raises `OSError` if the file cannot be created."""
    global _file
    stop()
    _file = path.open("w", encoding="utf-8", buffering=1)
    _file.write("[\n")


def stop() -> None:
    """Close the trace file, if there is one."""
    global _file
    file, _file = _file, None
    if file is not None:
        file.close()


@contextlib.contextmanager
def span(name: str) -> Iterator[None]:
    """Record the time inside the `with` block as a stage of the current track."""
    track = _track.get()
    _write("b", name, track)
    try:
        yield
    finally:
        _write("e", name, track)


def mark(name: str, **values: float | str) -> None:
    """Record that something happened now in the current track. `values` are shown with it, and must contain no code."""
    _write("n", name, _track.get(), values)


def traced(name: str, handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return `handler`, or if this process writes a trace, a function that records each call as a new track."""
    if _file is None:
        return handler
    if inspect.iscoroutinefunction(handler):

        @functools.wraps(handler)
        async def traced_handler(*arguments: Any) -> Any:
            with _new_track(name):
                return await handler(*arguments)

    else:

        @functools.wraps(handler)
        def traced_handler(*arguments: Any) -> Any:
            with _new_track(name):
                return handler(*arguments)

    return traced_handler


@contextlib.contextmanager
def _new_track(name: str) -> Iterator[None]:
    before = _track.set(next(_tracks))
    try:
        with span(name):
            yield
    finally:
        _track.reset(before)


def _write(phase: str, name: str, track: int, values: dict[str, float | str] | None = None) -> None:
    if _file is None:
        return
    event = {"name": name, "cat": "server", "ph": phase, "id": track, "pid": os.getpid(), "tid": 0}
    event["ts"] = time.perf_counter_ns() // 1000  # microseconds
    if values:
        event["args"] = values
    try:
        _file.write(json.dumps(event) + ",\n")
    except OSError as error:  # for example, the disk is full
        log.warning("the trace ends here: %s", error)
        with contextlib.suppress(OSError):
            stop()
