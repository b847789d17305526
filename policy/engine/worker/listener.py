"""Accept client connections on a socket that only this user can reach.

The process ends when the last client disconnects. The event loop of the socket has its own thread, so that a
cancellation, or the end of a client's process, stops a running evaluation immediately. The main thread takes the
requests from the `Scheduler` and runs them. The requests `cancel` and `rank` take effect without the main thread, while
it runs another request.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import threading
from collections.abc import Callable
from itertools import count

from policy.engine import protocol
from policy.engine.endpoint import Endpoint
from policy.engine.worker.scheduler import Scheduler

FIRST_CLIENT_TIMEOUT = 10.0  # seconds to wait for the first client; the server that started the worker may have ended
FIRST_FRAME_TIMEOUT = 10.0  # seconds that a connected client has to send the token
MAX_BACKLOG_BYTES = 1 << 22  # a client with more unread bytes of answers is disconnected, to limit the memory
_FIRST_FRAME = 1 << 10  # the maximum size in bytes of the frame with the token


class Listener:
    """Accepts connections at `endpoint`, which this process has claimed. It calls `leave` to end the process.

    `leave` must end the process without waiting for the main thread, which may be in native code. Prompts that are not
    saved to disk at that moment are evaluated again by the next worker. A client that connects at that moment gets no
    welcome message, and starts another engine.
    """

    def __init__(self, endpoint: Endpoint, scheduler: Scheduler, leave: Callable[[], None]) -> None:
        self._endpoint = endpoint
        self._scheduler = scheduler
        self._leave = leave
        self._token = ""
        self._names = count(1)
        self._connected = 0

    def open(self) -> None:
        """Start to listen. Raises `OSError` if the socket cannot be opened."""
        listening = threading.Event()
        failures: list[OSError] = []
        thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listening.set, failures)), name="listener", daemon=True
        )
        thread.start()
        listening.wait()
        if failures:
            raise failures[0]

    async def _serve(self, listening: Callable[[], None], failures: list[OSError]) -> None:
        try:
            server, self._token = await self._endpoint.listen(self._accept)
        except OSError as error:
            failures.append(error)
            return
        finally:
            listening()
        async with server:
            await asyncio.sleep(FIRST_CLIENT_TIMEOUT)
            if not self._connected:
                self._leave()
            await server.serve_forever()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client that sends an invalid frame is disconnected, because the start of its next frame is unknown.
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.TimeoutError, OSError, ValueError):
            try:
                hello = await asyncio.wait_for(protocol.receive(reader, _FIRST_FRAME), FIRST_FRAME_TIMEOUT)
                if self._knows(hello.get("token")):
                    await self._receive(ClientConnection(f"{next(self._names)}", writer), reader)
            finally:
                writer.close()

    def _knows(self, token: object) -> bool:
        """Return whether `token` is the token that a client must send."""
        if not isinstance(token, str):
            return False
        return hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._token.encode())

    async def _receive(self, client: ClientConnection, reader: asyncio.StreamReader) -> None:
        self._connected += 1
        self._scheduler.add(client)
        client.send({"event": "welcome", "pid": os.getpid()})
        try:
            while True:
                message = protocol.checked_request(await protocol.receive(reader))
                match message["op"]:
                    case "cancel":
                        self._scheduler.cancel(client, message["id"])
                    case "rank":
                        self._scheduler.rank(client, message["id"], message["background"])
                    case _:
                        self._scheduler.put(client, message)
        finally:
            self._connected -= 1
            # Free the cells of this client's documents for other clients.
            left = self._scheduler.remove(client, {"id": 0, "op": "forget", "prefix": ""})
            if not left:
                self._leave()


class ClientConnection:
    """A connected client, which implements `scheduler.EngineClient`."""

    def __init__(self, name: str, writer: asyncio.StreamWriter) -> None:
        self.name = name
        self._writer = writer
        self._loop = asyncio.get_running_loop()

    def send(self, message: protocol.Message) -> None:
        """Queue an answer. Any thread may call this method."""
        self._loop.call_soon_threadsafe(self._write, message)

    def _write(self, message: protocol.Message) -> None:
        if self._writer.transport.get_write_buffer_size() > MAX_BACKLOG_BYTES:
            self._writer.transport.abort()
        elif not self._writer.is_closing():
            self._writer.write(protocol.pack(message))
