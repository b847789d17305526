"""Send malformed and hostile messages to a server, and check that it still answers and that its memory does not grow.

Usage: `python -m benchmarks.hostile [MESSAGES] [--seed N]`. After every hundred messages, the benchmark sends a valid
request, and fails if the server does not answer it. After each tenth of the messages, it prints the resident memory of
the server's process, without the worker's. The messages are random, but the same for the same seed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from lsp_server.client import Client

EVERY = 100  # the number of messages between two valid requests
SANE = "file:///sane.py"
URIS = [
    *(f"file:///tmp/hostile/{name}" for name in ("a.py", "b.js", "c%20d.c", "%FF.py", "a%00b.py", ".env", "é.rs")),
    "untitled:1", "vscode-notebook-cell:/n.ipynb#W0", "file://[", "file:", "", "\ud800", "a" * 5_000, "http://x/y",
]  # fmt: skip
METHODS = [
    "initialize", "initialized", "textDocument/didOpen", "textDocument/didChange", "textDocument/didClose",
    "textDocument/inlineCompletion", "textDocument/completion", "textDocument/didFocus", "repoformer/why",
    "textDocument/didShowCompletion", "textDocument/didPartiallyAcceptCompletion", "workspace/executeCommand",
    "workspace/didChangeConfiguration", "workspace/didChangeWatchedFiles", "notebookDocument/didOpen",
    "window/workDoneProgress/cancel", "$/cancelRequest", "$/setTrace", "$/progress", "no/such", "", "__init__",
]  # fmt: skip
TEXTS = [
    "",
    "x = 1\n",
    "\r",
    "\r\n\u2028\x0c",
    "\ud83d",
    "a\udc00b",
    "😀" * 50,
    "a" * 20_000,
    "def f():\n    return " * 40,
]
NUMBERS = [0, 1, -1, 7, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63, -(2**31), 10**400, 1.5, 1e308, True]


class Hostile:
    """Generates frames without end. The frames are the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def frames(self) -> Iterator[bytes]:
        """Yield frames. Many of them are malformed."""
        kinds = [self._noise, self._header, self._body, self._reply, self._sync, self._request, self._request]
        while True:
            yield self._random.choice(kinds)()

    def _noise(self) -> bytes:
        pick = self._random
        line = bytes(pick.randrange(256) for _ in range(pick.randrange(200)))
        return pick.choice([line, line + b"\r\n", b"\r\n" * 5, b"A" * 200_000, b"Content-Length\r\n\r\n", b"{}", b"\0"])

    def _header(self) -> bytes:
        body = json.dumps({"jsonrpc": "2.0", "method": "$/setTrace", "params": {"value": "off"}}).encode()
        length = self._random.choice(
            [
                b"-5",
                b"abc",
                b"0",
                b"",
                b"999999999999",
                b"1073741823",
                b"%d" % (len(body) + 50),
                b"%d" % (len(body) // 2),
            ]
        )
        head = self._random.choice(
            [
                b"Content-Length: " + length + b"\r\n\r\n",
                b"content-length:" + length + b"\n\n",
                b"Content-Length: " + length + b"\r\nContent-Length: " + length + b"\r\n\r\n",
                b"Content-Length: " + length + b"\r\n",
                b"Content-Type: x\r\n\r\n",
            ]
        )
        return head + body

    def _body(self) -> bytes:
        depth = self._random.choice([10, 900, 100_000])
        text = self._random.choice(
            [
                b"[" * depth, b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth, b"null", b"5",
                b'"x"', b"[]",
                b'[{"jsonrpc":"2.0","id":1,"method":"shutdown"}]', b"{", b"NaN", b"\xff\xfe", b'{"id":{}}',
                b"9" * 9999,
                b'{"jsonrpc":"2.0","id":1,"method":"no/such","params":' + b"[" * depth + b"]" * depth + b"}",
                b'{"jsonrpc":"2.0","method":"repoformer/why","params":{"jsonrpc":"2.0","method":"exit"}}',
            ]
        )  # fmt: skip
        return framed(text)

    def _reply(self) -> bytes:
        answer = self._random.choice(
            [{"result": self._value(2)}, {"error": {"code": -1, "message": "no"}}, {"error": 5}]
        )
        return message({"id": self._random.choice([1, 10**6, "x", None, 1.5, [1], {}]), **answer})

    def _sync(self) -> bytes:
        """Return a message that opens, changes or closes a document. Its positions may not exist in the document."""
        uri, pick = self._random.choice(URIS), self._random

        def position() -> dict[str, Any]:
            return {"line": pick.choice(NUMBERS), "character": pick.choice(NUMBERS)}

        document = {
            "uri": uri,
            "version": pick.choice([*NUMBERS, None]),
            "languageId": "python",
            "text": pick.choice(TEXTS),
        }
        change: dict[str, Any] = {"text": pick.choice(TEXTS)}
        if pick.random() < 0.8:
            change["range"] = pick.choice([None, {"start": position(), "end": position()}, {"start": position()}])
        method, params = pick.choice(
            [
                ("textDocument/didOpen", {"textDocument": document}),
                ("textDocument/didChange", {"textDocument": document, "contentChanges": [change] * pick.randrange(4)}),
                ("textDocument/didClose", {"textDocument": document}),
            ]
        )
        return message({"method": method, "params": params})

    def _request(self) -> bytes:
        pick = self._random
        sent: dict[str, Any] = {"method": pick.choice(METHODS), "params": self._value(4)}
        if pick.random() < 0.6:
            sent["id"] = pick.choice([pick.randrange(10**6, 10**7), "é", None, -1, 1.5, [], {"a": 1}])
        if pick.random() < 0.1:
            sent[pick.choice(["method", "jsonrpc", "id"])] = self._value(1)
        if sent.get("method") == "exit":
            del sent["method"]
        return message(sent)

    def _value(self, depth: int) -> Any:
        pick = self._random
        kind = pick.randrange(8) if depth else pick.randrange(5)
        match kind:
            case 0:
                return None
            case 1:
                return pick.choice(NUMBERS)
            case 2:
                return pick.choice([*TEXTS, *URIS])
            case 3:
                return pick.random() < 0.5
            case 4:
                return pick.choice([float("nan"), float("inf"), -0.0])
            case 5:
                return [self._value(depth - 1) for _ in range(pick.randrange(4))]
            case _:
                return {name: self._value(depth - 1) for name in pick.sample(_NAMES, pick.randrange(5))}


_NAMES = [
    "textDocument", "uri", "position", "line", "character", "context", "triggerKind", "range", "start", "end", "text",
    "contentChanges", "version", "languageId", "settings", "repoformer", "item", "command", "arguments", "id",
    "type_name", "jsonrpc",
    "changes", "token", "value", "selectedCompletionInfo", "capabilities", "processId", "rootUri",
    "workspaceFolders", "initializationOptions", "event", "added", "removed", "model", "threads", "tensorSplit",
]  # fmt: skip


def framed(body: bytes) -> bytes:
    """Return a frame of the protocol, which is a header with the length of `body`, and then `body`."""
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


def message(members: dict[str, Any]) -> bytes:
    """Return a frame that contains a JSON-RPC message with these members."""
    return framed(json.dumps({"jsonrpc": "2.0", **members}).encode())


async def assault(client: Client, count: int, seed: int, *, patience: float = 60.0) -> list[int]:
    """Send `count` messages to the server of `client`. Return the server's memory in bytes after each valid request.

    Raises `TimeoutError` if the server does not answer a valid request within `patience` seconds.
    """
    assert client.process is not None
    server = psutil.Process(client.process.pid)
    client.open(SANE, "x = 1\n")
    memory = []
    for number, frame in enumerate(Hostile(seed).frames(), 1):
        client.writer.write(frame)
        if number % EVERY == 0 or number == count:
            client.edit(SANE, number, (0, 0), (0, 0), "")
            answer = client.request("repoformer/why", {"textDocument": {"uri": SANE}})
            await asyncio.wait_for(answer, patience)
            await asyncio.wait_for(client.complete(SANE, (0, 5)), patience)
            memory.append(server.memory_info().rss)
            client.received.clear()
        if number == count:
            return memory
    raise AssertionError("the generator of messages has ended, but it is endless")


async def _main(count: int, seed: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        env = {name: f"{folder}/{name}" for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")}
        client = await Client.spawn([sys.executable, "-m", "lsp_server.cli"], env=env)
        await client.initialize([Path(folder)], options={"model": f"{folder}/absent.gguf"})
        memory = await assault(client, count, seed)
        tenth = max(1, len(memory) // 10)
        print("messages  memory (MB)")
        for at in range(tenth - 1, len(memory), tenth):
            print(f"{min((at + 1) * EVERY, count):8,}  {memory[at] / 1e6:11.1f}")
        return await client.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("messages", nargs="?", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.exit(asyncio.run(_main(options.messages, options.seed)))
