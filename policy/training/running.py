"""What a long run on a shared machine needs: to stop at a step's end, to save at once, to leave the memory alone."""

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
    """Turns the first Ctrl-C or SIGTERM into a request (`asked`); the second ends the process as ever."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: FrameType | None) -> None:
        self.asked = True
        signal.signal(number, self._before[number])


def save_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside `path`, then replace it: an interrupt or a full disk leaves the file that was there.

    Raises `TrainingError` when it cannot be written.
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


def quick_memory() -> None:
    """Tell glibc to keep freed memory instead of giving it back after each tensor.

    Activations of some megabytes are otherwise mapped, cleared page by page by the kernel, and unmapped in each
    operation, which costs as much as the arithmetic on them.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        trim_threshold, mmap_max = -1, -4
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, (1 << 31) - 1)
