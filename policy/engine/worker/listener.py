"""The worker's door: servers come in over a socket, ask, and go; the last one out puts out the light.

An event loop in a thread of its own, so that a cancellation reaches a running evaluation at once, and so that a server
that died without a word is missed at once. What a client asks for goes to `Turns`, from where the main thread takes
it; `cancel` and `rank` never wait there.
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
from policy.engine.endpoint import Place
from policy.engine.worker.scheduler import Turns

# Seconds for the first client to come: whoever started this process may be gone by now.
PATIENCE = 10.0
LONGEST_BACKLOG = 1 << 22  # bytes; a client that does not read its answers is let go, for it would make others wait
_FIRST_FRAME = 1 << 10  # bytes; nobody who has not said the token may send more


class Host:
    """Lets clients in at `place`, which this process has claimed; `leave` ends the process when nobody is left.

    The main thread may then be deep in native code, and there is nothing to save. A client that knocks at this moment
    finds the door shut before it was welcomed, and starts another engine.
    """

    def __init__(self, place: Place, turns: Turns, leave: Callable[[], None]) -> None:
        self._place = place
        self._turns = turns
        self._leave = leave
        self._token = ""
        self._names = count(1)
        self._guests = 0

    def open(self) -> None:
        """Begin to listen. Raises `OSError` where that is impossible."""
        listening = threading.Event()
        failures: list[OSError] = []
        thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listening.set, failures)), name="host", daemon=True
        )
        thread.start()
        listening.wait()
        if failures:
            raise failures[0]

    async def _serve(self, listening: Callable[[], None], failures: list[OSError]) -> None:
        try:
            server, self._token = await self._place.listen(self._welcome)
        except OSError as error:
            failures.append(error)
            return
        finally:
            listening()
        async with server:
            await asyncio.sleep(PATIENCE)
            if not self._guests:
                self._leave()
            await server.serve_forever()

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ValueError, KeyError):
            hello = await protocol.receive(reader, _FIRST_FRAME)
            if hmac.compare_digest(hello["token"], self._token):
                await self._entertain(Guest(f"{next(self._names)}", writer), reader)
        writer.close()

    async def _entertain(self, guest: Guest, reader: asyncio.StreamReader) -> None:
        self._guests += 1
        self._turns.join(guest)
        guest.send({"event": "welcome", "pid": os.getpid()})
        try:
            while True:
                message = await protocol.receive(reader)
                match message["op"]:
                    case "cancel":
                        self._turns.cancel(guest, message["id"])
                    case "rank":
                        self._turns.rank(guest, message["id"], message["background"])
                    case _:
                        self._turns.put(guest, message)
        finally:
            self._guests -= 1
            # What the cache holds for its documents is of no use to anybody; the cells are.
            left = self._turns.leave(guest, {"id": 0, "op": "forget", "prefix": ""})
            if not left:
                self._leave()


class Guest:
    """A client of `Turns` on the other end of a connection."""

    def __init__(self, name: str, writer: asyncio.StreamWriter) -> None:
        self.name = name
        self._writer = writer
        self._loop = asyncio.get_running_loop()

    def send(self, message: protocol.Message) -> None:
        """Queue an answer, from whichever thread."""
        self._loop.call_soon_threadsafe(self._write, protocol.pack(message))

    def _write(self, frame: bytes) -> None:
        if self._writer.transport.get_write_buffer_size() > LONGEST_BACKLOG:
            self._writer.transport.abort()
        elif not self._writer.is_closing():
            self._writer.write(frame)
