"""A small LSP client, which the demonstration, the benchmarks and the end-to-end tests use instead of an editor.

The client sends and returns plain JSON values, so that tests see the messages exactly as the server sends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lsp_server.text import Encoding, Position

Message = dict[str, Any]

_LONGEST_MESSAGE = 1 << 26  # the maximum number of bytes in a message from the server


class RefusedError(Exception):
    """The server answered a request with an error. `code` is the error code of the protocol."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code


@dataclass
class Client:
    """A connection to one server. `settings` is the answer to the server's request `workspace/configuration`."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    process: asyncio.subprocess.Process | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    received: list[Message] = field(default_factory=list)
    """The notifications and requests of the server, in the order of their arrival."""
    answers: dict[str, Any] = field(default_factory=dict)
    """The answers to the server's other requests, by method. The default answer is null."""
    name: str = "repoformer-lsp's own client"

    def __post_init__(self) -> None:
        self.capabilities: Message = {}
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._news = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def spawn(
        cls,
        command: Sequence[str | Path],
        *,
        settings: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Client:
        """Start a server, and connect to it over stdio. The server inherits the standard error of this process."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            limit=_LONGEST_MESSAGE,
        )
        assert process.stdin is not None and process.stdout is not None
        return cls(process.stdout, process.stdin, process, settings or {})

    @classmethod
    async def connect(cls, host: str, port: int, *, settings: Mapping[str, Any] | None = None) -> Client:
        """Connect to the server that listens at `host:port`. Raises `OSError` if no server listens there."""
        reader, writer = await asyncio.open_connection(host, port, limit=_LONGEST_MESSAGE)
        return cls(reader, writer, settings=settings or {})

    # -- messages -----------------------------------------------------------------------------------------------------

    def notify(self, method: str, params: object) -> None:
        """Send a notification."""
        self._send({"jsonrpc": "2.0", "method": method, "params": params})

    def ask(self, method: str, params: object) -> tuple[int, Awaitable[Any]]:
        """Send a request. Return its id and its awaitable result, which raises `RefusedError` for an error."""
        number = next(self._ids)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return number, future

    async def request(self, method: str, params: object = None) -> Any:
        """Send a request and wait for its result. Raises `RefusedError` for an error."""
        _, answer = self.ask(method, params)
        return await answer

    def cancel(self, number: int) -> None:
        """Cancel the request with the id `number`."""
        self.notify("$/cancelRequest", {"id": number})

    async def seen(self, method: str, where: Callable[[Any], bool] = lambda params: True) -> Any:
        """Return the parameters of the server's first message with this method whose parameters satisfy `where`.

        Wait for such a message if none has arrived. Raises `ConnectionError` if the server ends first.
        """
        async with self._news:
            while True:
                for message in self.received:
                    if message["method"] == method and where(message.get("params")):
                        return message.get("params")
                if self._reading.done():
                    raise ConnectionError(f"the server ended without sending {method}")
                await self._news.wait()

    # -- actions of an editor ------------------------------------------------------------------------------------------

    async def initialize(
        self,
        roots: Sequence[Path],
        *,
        encodings: Sequence[Encoding] = ("utf-16",),
        options: Any = None,
        process_id: int | None = None,
        capabilities: Message | None = None,
    ) -> Message:
        """Initialize the server, and return its answer.

        The client announces the capabilities of a typical editor, except those that `capabilities` overrides.
        """
        offered = {
            "general": {"positionEncodings": list(encodings)},
            "window": {"workDoneProgress": True},
            "workspace": {
                "configuration": True,
                "workspaceFolders": True,
                "didChangeConfiguration": {"dynamicRegistration": True},
                "didChangeWatchedFiles": {"dynamicRegistration": True},
            },
            "textDocument": {"inlineCompletion": {"dynamicRegistration": False}},
        }
        params = {
            "processId": process_id,
            "clientInfo": {"name": self.name},
            "rootUri": None,
            "workspaceFolders": [{"uri": root.as_uri(), "name": root.name} for root in roots],
            "initializationOptions": options,
            "capabilities": offered | (capabilities or {}),
        }
        answer: Message = await self.request("initialize", params)
        self.capabilities = answer["capabilities"]
        self.notify("initialized", {})
        return answer

    def open(self, uri: str, text: str, language: str = "python") -> None:
        """Open a document."""
        item = {"uri": uri, "languageId": language, "version": 1, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": item})

    def edit(self, uri: str, version: int, start: Position, end: Position, text: str) -> None:
        """Replace a range of a document."""
        change = {"range": {"start": _position(start), "end": _position(end)}, "text": text}
        document = {"uri": uri, "version": version}
        self.notify("textDocument/didChange", {"textDocument": document, "contentChanges": [change]})

    def close_document(self, uri: str) -> None:
        """Close a document."""
        self.notify("textDocument/didClose", {"textDocument": {"uri": uri}})

    def ask_completion(
        self, uri: str, at: Position, *, invoked: bool = True, selected: Message | None = None
    ) -> tuple[int, Awaitable[list[Message]]]:
        """Request inline completions. Return the request's id and its awaitable items."""
        context: Message = {"triggerKind": 1 if invoked else 2}
        if selected:
            context["selectedCompletionInfo"] = selected
        params = {"textDocument": {"uri": uri}, "position": _position(at), "context": context}
        number, answer = self.ask("textDocument/inlineCompletion", params)
        return number, _items(answer)

    async def complete(self, uri: str, at: Position, *, invoked: bool = True) -> list[Message]:
        """Request inline completions and wait for the items."""
        return await self.ask_completion(uri, at, invoked=invoked)[1]

    async def why(self, uri: str) -> Message:
        """Return the report about the last completion of a document."""
        report: Message = await self.request("repoformer/why", {"textDocument": {"uri": uri}})
        return report

    async def close(self) -> int:
        """Shut down the server. Return its exit status, or 0 if this client did not start it."""
        await self.request("shutdown")
        self.notify("exit", None)
        return await self.ended()

    async def ended(self) -> int:
        """Wait until the server disconnects. Return its exit status, or 0 if this client did not start it."""
        await self._reading
        self.writer.close()
        return await self.process.wait() if self.process else 0

    # -- connection ---------------------------------------------------------------------------------------------------

    def _send(self, message: Message) -> None:
        body = json.dumps(message).encode()
        self.writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)

    async def _read(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                header = await self.reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line[15:]) for line in header.splitlines() if line.lower().startswith(b"content-length:")
                )
                await self._receive(json.loads(await self.reader.readexactly(length)))
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionError("the server ended"))
                future.exception()  # without this call, asyncio would log the error of a future that is not awaited
        async with self._news:
            self._news.notify_all()

    async def _receive(self, message: Message) -> None:
        if "method" not in message:
            future = self._waiting.pop(message.get("id", -1), None)
            if future is None or future.done():
                return
            if error := message.get("error"):
                future.set_exception(RefusedError(error["code"], error["message"]))
            else:
                future.set_result(message.get("result"))
            return
        if "id" in message:
            self._send({"jsonrpc": "2.0", "id": message["id"], "result": self._answer(message)})
        async with self._news:
            self.received.append(message)
            self._news.notify_all()

    def _answer(self, message: Message) -> Any:
        if message["method"] != "workspace/configuration":
            return self.answers.get(message["method"])
        return [self.settings for _ in message["params"]["items"]]


def _position(position: Position) -> Message:
    return {"line": position[0], "character": position[1]}


async def _items(answer: Awaitable[Any]) -> list[Message]:
    result = await answer
    items: list[Message] = result["items"] if isinstance(result, dict) else result or []
    return items
