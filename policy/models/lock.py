"""A lock for downloads: a second process that downloads the same model waits for the first one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_POLL_SECONDS = 0.2  # the interval at which `stop` is checked


class Stopped(Exception):
    """The caller stopped the download. The bytes that were downloaded are kept."""


@contextmanager
def only_one(file: Path, name: str, say: Callable[[str], None], stop: threading.Event | None = None) -> Iterator[None]:
    """Hold the lock on `file` inside the `with` block. Only one process at a time can hold it.

    If another process holds the lock, `say` gets the message that this process is downloading `name`, and the function
    waits for the lock. The operating system releases the lock when its process ends. Raises `Stopped` if `stop` is set
    while the function waits, and `OSError` if the file cannot be locked.
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
