"""Detect that the editor's process has ended although the connection is still open.

Usually, stdin ends with the editor. But stdin does not end if another child process of the editor has inherited the
pipe, and a server on TCP does not use stdin. For these cases, the client sends its process id in `initialize`, and the
server checks that process every few seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psutil

INTERVAL_SECONDS = 2.0


async def watch(pid: int, gone: Callable[[], None], interval: float = INTERVAL_SECONDS) -> None:
    """Call `gone` when the process `pid` has ended. `interval` is the time between two checks in seconds.

    If no such process is visible at the start, do nothing, because the client runs in another container or on another
    machine. If a new process gets the same id, the old process counts as ended.
    """
    try:
        process = psutil.Process(pid)
    except (psutil.Error, ValueError, OverflowError):  # the last two mean that `pid` is not a valid process id
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
