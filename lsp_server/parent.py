"""Detect that the editor's process has ended although the connection is open.

Usually, stdin ends. It does not end if another child of the editor has inherited the pipe, and TCP has no stdin. For
these cases the client sends its process id in `initialize`, and that process is checked every few seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psutil

INTERVAL_SECONDS = 2.0


async def watch(pid: int, gone: Callable[[], None], interval: float = INTERVAL_SECONDS) -> None:
    """Call `gone` when the process `pid` has ended.

    A process that is not visible at the start is not watched, because the client runs in another container or on
    another machine. A new process with the same id does not count as the old one.
    """
    try:
        process = psutil.Process(pid)
    except (psutil.Error, ValueError, OverflowError):  # the last two: not a process id
        return
    while _alive(process):  # noqa: ASYNC110  # there is no portable event for the end of another process
        await asyncio.sleep(interval)
    gone()


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
