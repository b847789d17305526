"""A lock for downloads: a second process that downloads the same model waits for the first one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_POLL_SECONDS = 0.2  # the interval at which `stop` is checked


class Stopped(Exception):
    """The download was stopped. What has arrived is kept."""


@contextmanager
def only_one(file: Path, name: str, say: Callable[[str], None], stop: threading.Event | None = None) -> Iterator[None]:
    """Hold the lock on `file`.

    The operating system releases it even if the process dies. Raises `Stopped` and `OSError`.

    `say` gets a message if another process holds the lock, while this function waits. `name` is what that process is
    downloading.
    """
    lock = FileLock(file, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another process is downloading {name}; waiting for it")
        while not lock.is_locked:
            if stop is not None and stop.is_set():
                raise Stopped from None
            try:
                lock.acquire(timeout=_POLL_SECONDS)
            except Timeout:
                continue
    try:
        yield
    finally:
        lock.release()
