"""Connect to an engine that is already running, or start one and connect to it.

Several servers may do this at the same time. Each server retries until it is connected. A server that finds no listener
starts a process. If several processes start, one of them gets the lock and serves, and the others exit.
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

TIMEOUT = 60.0  # seconds; long, because a machine that swaps starts a process slowly
RETRY_INTERVAL = 0.02  # seconds between two tries


async def connect(
    endpoint: Endpoint, environment: Mapping[str, str], log: Callable[[str], None]
) -> tuple[Streams, int, Process | None]:
    """Return the streams to the engine at `endpoint`, its process id, and its process if this function started it.

    Raises `EngineDied` if the started process fails before it serves, and `EngineUnavailable` if no process can be
    started or reached.
    """
    endpoint.check()
    process: Process | None = None
    waiting_until = time.monotonic() + TIMEOUT
    while time.monotonic() < waiting_until:
        # A try fails if no listener answers yet, or if another program uses the port of an engine that has ended.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, ValueError):
            streams, pid = await asyncio.wait_for(_handshake(endpoint), waiting_until - time.monotonic())
            return streams, pid, process if process is not None and process.pid == pid else None
        # A process exits with 0 if another one serves, or if no client connected in time.
        if process is not None and process.ended.done() and process.ended.result() != 0:
            raise EngineDied(process.reason(), crashed=process.crashed)
        if process is None or process.ended.done():
            process = launch(endpoint, environment, log)
        await asyncio.sleep(RETRY_INTERVAL)
    raise EngineUnavailable(f"no engine answered at {endpoint.socket} within {TIMEOUT:.0f} seconds")


async def _handshake(endpoint: Endpoint) -> tuple[Streams, int]:
    """Connect, send the token, and wait for the welcome message. Return the streams and the process id.

    Raises `OSError` or `IncompleteReadError` if no listener answers, and `ValueError` if the answer is another message.
    """
    (reader, writer), token = await endpoint.connect()
    try:
        writer.write(protocol.pack({"token": token}))
        welcome = await protocol.receive(reader)
        if not isinstance(pid := welcome.get("pid"), int):
            raise ValueError("not a welcome message")
        return (reader, writer), pid
    except BaseException:
        writer.close()
        raise
