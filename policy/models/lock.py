"""One download of a model at a time: a second process waits for the first, and says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_TICK = 0.2  # seconds between two looks at `stop`


class Stopped(Exception):
    """The download was told to stop; what has arrived is kept."""


@contextmanager
def only_one(file: Path, name: str, say: Callable[[str], None], stop: threading.Event | None = None) -> Iterator[None]:
    """Hold the lock on `file`, which the system gives back however the process ends. Raises `Stopped`, and `OSError`.

    `say` is told where another process holds it and has to be waited for; `name` is what that process is getting.
    """
    lock = FileLock(file, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another process is getting {name}; waiting for it")
        while not lock.is_locked:
            if stop is not None and stop.is_set():
                raise Stopped from None
            try:
                lock.acquire(timeout=_TICK)
            except Timeout:
                continue
    try:
        yield
    finally:
        lock.release()
