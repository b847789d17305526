"""A stand-in for an OpenAI-compatible server, which answers correctly, wrongly, or never, as a test needs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

Asked = dict[str, Any]
Behavior = Callable[[asyncio.StreamWriter, Asked], Awaitable[None]]


@dataclass
class StandIn:
    """A running stand-in.

    `asked` and `headers` have the body and the headers of each request. `disconnected` is the number of clients that
    disconnected before the end of the answer.
    """

    behave: Behavior
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    disconnected: int = 0
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` is true. It is checked after each request and each disconnection."""
        async with self.news:
            await self.news.wait_for(condition)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
            self.headers.append(headers)
            asked = json.loads(await reader.readexactly(int(headers["content-length"])))
            self.asked.append(asked)
            await self._tell()
            answering = asyncio.ensure_future(self.behave(writer, asked))
            leaving = asyncio.ensure_future(reader.read())
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            self.disconnected += not answering.done()
            for task in (answering, leaving):
                task.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)
            await self._tell()
        writer.close()

    async def _tell(self) -> None:
        async with self.news:
            self.news.notify_all()


@contextlib.asynccontextmanager
async def standing_in(behave: Behavior, tls: ssl.SSLContext | None = None) -> AsyncIterator[StandIn]:
    """Run a stand-in on a free port of 127.0.0.1 until the end of the `with` block."""
    stand_in = StandIn(behave)
    server = await asyncio.start_server(stand_in._serve, "127.0.0.1", 0, ssl=tls)
    scheme, port = "https" if tls else "http", server.sockets[0].getsockname()[1]
    stand_in.url = f"{scheme}://127.0.0.1:{port}/v1"
    try:
        yield stand_in
    finally:
        server.close()


def status(code: int, *headers: str, body: bytes = b"") -> Behavior:
    """Return a behavior that answers with a status code."""

    async def behave(writer: asyncio.StreamWriter, _asked: Asked) -> None:
        lines = [f"HTTP/1.1 {code} Whatever", f"Content-Length: {len(body)}", *headers, "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        await writer.drain()

    return behave


def refusal(code: int, message: str, **more: object) -> Behavior:
    """Return a behavior that answers with an error in OpenAI's format."""
    body = json.dumps({"error": {"message": message, "code": code, **more}}).encode()
    return status(code, "Content-Type: application/json; charset=utf-8", body=body)


def stream(*pieces: str | float | bytes, done: bool = True, head: str = "") -> Behavior:
    """Return a behavior that streams events.

    Each text in `pieces` is sent as an event, bytes are sent unchanged, and a number is a pause in seconds. `head` is
    another header.
    """

    async def behave(writer: asyncio.StreamWriter, _asked: Asked) -> None:
        lines = ["HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Connection: close", *([head] if head else [])]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        for piece in pieces:
            if isinstance(piece, float):
                await asyncio.sleep(piece)
            else:
                writer.write(piece if isinstance(piece, bytes) else event(piece))
                await writer.drain()
        if done:
            writer.write(event("", "stop") + b"data: [DONE]\n\n")
            await writer.drain()

    return behave


def event(text: str, reason: str | None = None, **more: object) -> bytes:
    """Return one event of a streamed answer, which contains `text`. `reason` says why the text ends, or is None."""
    choice = {"text": text, "index": 0, "finish_reason": reason}
    return b"data: " + json.dumps({"choices": [choice], **more}).encode() + b"\n\n"


def answer(choice: dict[str, Any]) -> Behavior:
    """Return a behavior that answers with one JSON object, as servers do for requests without `stream`."""
    body = json.dumps({"choices": [choice]}).encode()
    return status(200, "Content-Type: application/json", body=body)


async def never(_writer: asyncio.StreamWriter, _asked: Asked) -> None:
    """Accept the request and never answer."""
    await asyncio.sleep(1000)
