"""Support for long runs: stop after a step, replace files in one step, and keep freed memory."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from .manifest import TrainingError


class StopRequest:
    """Inside the `with` block, turns the first Ctrl-C or SIGTERM into a request to stop (`requested`).

    A second signal of the same kind has its usual effect and ends the process.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, _: FrameType | None) -> None:
        self.requested = True
        signal.signal(number, self._before[number])


def save_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write to a temporary file and rename it to `path`. An interrupt or a full disk does not damage the old file.

    Raises `TrainingError` if the file cannot be written.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as problem:  # torch wraps a full disk in a RuntimeError
        temporary.unlink(missing_ok=True)
        raise TrainingError(f"could not save {path}: {problem}") from problem


def keep_freed_memory() -> None:
    """Configure glibc to keep freed memory instead of returning it to the kernel.

    Otherwise, the kernel maps, clears and unmaps the memory of each large tensor, which takes as long as the arithmetic
    with the tensor (docs/experiments.md, "Returning memory to the kernel").
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        trim_threshold, mmap_max = -1, -4
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, (1 << 31) - 1)
