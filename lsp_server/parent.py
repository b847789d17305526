"""Notices that the editor is gone although the pipe stays open.

The end of stdin is the usual sign. It does not come when another child of the editor inherited the pipe, or over TCP;
for those the client names its process in `initialize`, and that process is looked at every few seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psutil

INTERVAL_SECONDS = 2.0


async def watch(pid: int, gone: Callable[[], None], interval: float = INTERVAL_SECONDS) -> None:
    """Call `gone` once process `pid` has ended.

    A process that cannot be seen to begin with is not watched: the client runs in another container or on another
    machine. A new process with the same id does not count as the old one.
    """
    try:
        process = psutil.Process(pid)
    except (psutil.Error, ValueError, OverflowError):  # or it is no process id at all
        return
    while _alive(process):  # noqa: ASYNC110  # an operating system has no event for another process's end
        await asyncio.sleep(interval)
    gone()


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
