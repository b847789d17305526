"""Connect to an engine: to the one that serves already, or to one that is started now.

Several servers may do this at once. Each retries until it is connected: a server that finds no listener starts a
process, and of several started processes one gets the lock and serves while the others exit.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping

from policy.engine import protocol
from policy.engine.endpoint import Endpoint, Streams
from policy.engine.process import Process, launch
from policy.errors import EngineDied, EngineUnavailable

TIMEOUT = 60.0  # seconds; a machine that swaps may take long to start a process
RETRY_INTERVAL = 0.02  # seconds


async def connect(
    endpoint: Endpoint, environment: Mapping[str, str], log: Callable[[str], None]
) -> tuple[Streams, int, Process | None]:
    """Return the streams to the engine at `endpoint`, its process id, and its process if it was started here.

    Raises `EngineDied` when the process that was started fails before it serves, and `EngineUnavailable` when none can
    be started or reached.
    """
    endpoint.check()
    process: Process | None = None
    waiting_until = time.monotonic() + TIMEOUT
    while time.monotonic() < waiting_until:
        # The listener may be stopped, or another program may have got the port of an engine that has ended.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, ValueError):
            streams, pid = await asyncio.wait_for(_handshake(endpoint), waiting_until - time.monotonic())
            return streams, pid, process if process is not None and process.pid == pid else None
        # A process that exits with 0 found that another one serves, or that no client came in time.
        if process is not None and process.ended.done() and process.ended.result() != 0:
            raise EngineDied(process.reason(), crashed=process.crashed)
        if process is None or process.ended.done():
            process = launch(endpoint, environment, log)
        await asyncio.sleep(RETRY_INTERVAL)
    raise EngineUnavailable(f"no engine answered at {endpoint.socket} within {TIMEOUT:.0f} seconds")


async def _handshake(endpoint: Endpoint) -> tuple[Streams, int]:
    """Connect, send the token, wait for the welcome. Raises `OSError` or `IncompleteReadError` without a listener."""
    (reader, writer), token = await endpoint.connect()
    try:
        writer.write(protocol.pack({"token": token}))
        welcome = await protocol.receive(reader)
        if not isinstance(pid := welcome.get("pid"), int):
            raise ValueError("not a welcome")
        return (reader, writer), pid
    except BaseException:
        writer.close()
        raise
