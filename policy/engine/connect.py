"""Joining an engine: the one that serves already, or one that is started for the purpose.

Several servers may do this at once, for each other's processes too. It comes out right because it is only ever tried
again: whoever finds nobody starts a process, of those started one gets the lock and serves, and the others leave.
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
RETRY_INTERVAL = 0.02


async def connect(
    endpoint: Endpoint, environment: Mapping[str, str], log: Callable[[str], None]
) -> tuple[Streams, int, Process | None]:
    """Connect to the engine of `endpoint`: the streams, its process id, and its process if it was started here.

    Raises `EngineDied` where a process that was started failed before it served, and `EngineUnavailable` where none
    can be started or reached.
    """
    endpoint.check()
    process: Process | None = None
    waiting_until = time.monotonic() + TIMEOUT
    while time.monotonic() < waiting_until:
        # Whoever listens may be stopped, or be somebody else who was given the port of an engine that has gone.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, ValueError):
            streams, pid = await asyncio.wait_for(_handshake(endpoint), waiting_until - time.monotonic())
            return streams, pid, process if process is not None and process.pid == pid else None
        # A process that left in peace found that another one served, or that nobody came in time.
        if process is not None and process.ended.done() and process.ended.result() != 0:
            raise EngineDied(process.reason(), crashed=process.crashed)
        if process is None or process.ended.done():
            process = launch(endpoint, environment, log)
        await asyncio.sleep(RETRY_INTERVAL)
    raise EngineUnavailable(f"no engine answered at {endpoint.socket} within {TIMEOUT:.0f} seconds")


async def _handshake(endpoint: Endpoint) -> tuple[Streams, int]:
    """Connect and be welcomed. Raises `OSError` or `IncompleteReadError` where nobody is there, or is just leaving."""
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
