"""Measure the delays of an event loop during work in other threads.

A delay has one of two causes. Either another thread of the process holds Python's global lock, or the system runs
another process on the core. To separate them, the benchmark subtracts the time for which the loop's thread waited for a
core, which Linux reports. A second process, which does nothing but measure its own delays, shows those that other load
on the machine causes.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import numpy as np

_BEAT = 0.001  # the seconds for which a loop sleeps; a longer sleep is a delay
_IDLE = f"""
import sys, threading, time
done = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
longest, over, last = 0.0, 0, time.perf_counter()
while not done.is_set():
    time.sleep({_BEAT})
    now = time.perf_counter()
    gap = (now - last - {_BEAT}) * 1e3
    longest, over, last = max(longest, gap), over + (gap > 10), now
print(longest, over)
"""


class _Core:
    """Reads how long a thread has waited for a core. It is the thread that creates this object."""

    def __init__(self) -> None:
        file = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        self._file = os.open(file, os.O_RDONLY) if file.exists() else -1

    def waited(self) -> float:
        """Return the thread's waiting time until now in ms, or 0.0 if the system does not report it."""
        return int(os.pread(self._file, 100, 0).split()[1]) / 1e6 if self._file >= 0 else 0.0

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)


async def with_beat(work: Awaitable[object]) -> dict[str, Any]:
    """Await `work` while the event loop wakes up every millisecond, and return figures of the loop's delays.

    A name with `own` is for delays without the time for which the loop's thread waited for a core. A name with `idle`
    is for the delays of the second process. `over_10_ms` is the number of delays of more than 10 ms.
    """
    gaps, own = array("d"), array("d")
    core = _Core()
    idle = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", _IDLE, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )

    async def beat() -> None:
        last, before = time.perf_counter(), core.waited()
        while True:
            await asyncio.sleep(_BEAT)
            now, waited = time.perf_counter(), core.waited()
            gap = (now - last - _BEAT) * 1e3
            gaps.append(gap)
            own.append(gap - (waited - before))
            last, before = now, waited

    beating = asyncio.create_task(beat())
    try:
        await work
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        core.close()
        output, _ = await idle.communicate(b"")  # the process ends when its input ends
    longest, over = output.split()
    return {
        "longest_ms": round(max(gaps), 1),
        "p99_ms": round(float(np.percentile(gaps, 99)), 2),
        "over_10_ms": sum(gap > 10 for gap in gaps),
        "own_longest_ms": round(max(own), 1),
        "own_over_10_ms": sum(gap > 10 for gap in own),
        "idle_longest_ms": round(float(longest), 1),
        "idle_over_10_ms": int(over),
        "beats": len(gaps),
    }
