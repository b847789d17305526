"""The server receives malformed and hostile messages, and very long lines.

`benchmarks.hostile` does the same with 10,000 messages.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.hostile import assault, framed
from lsp_server.client import Client
from tests.e2e.driving import Start, Workspace

Write = Callable[[str], Workspace]


@pytest.fixture
async def client(start: Start, tmp_path: Path) -> Client:
    """A client that is connected to a server without a model."""
    root = tmp_path / "workspace"
    root.mkdir()
    client = await start(root, model=tmp_path / "absent.gguf")
    await client.seen("repoformer/status", lambda status: status["state"] == "error")
    return client


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_request_is_answered_after_every_hundred_messages(client: Client, seed: int) -> None:
    memory = await assault(client, 300, seed)
    assert len(memory) == 3
    assert memory[-1] - memory[0] < 30e6, "bytes"


@pytest.mark.parametrize(
    ("body", "code", "number"),
    [
        (b"{", -32700, None),
        (b"[" * 100_000, -32700, None),
        (b"[]", -32600, None),
        (b'[{"jsonrpc":"2.0","id":1,"method":"repoformer/why"}]', -32600, None),
        (b'"x"', -32600, None),
        (b'{"id":9,"method":"repoformer/why"}', -32600, 9),
        (b'{"jsonrpc":"2.0","id":9,"method":5}', -32600, 9),
        (b'{"jsonrpc":"2.0","id":9,"method":"initialize","params":{"capabilities":{}}}', -32600, 9),
        (b'{"jsonrpc":"2.0","id":9,"method":"no/such"}', -32601, 9),
        (b'{"jsonrpc":"2.0","id":9,"method":"textDocument/inlineCompletion","params":[]}', -32602, 9),
        (b'{"jsonrpc":"2.0","id":9,"method":"workspace/executeCommand","params":{"command":"x"}}', -32602, 9),
    ],
)
async def test_what_is_no_request_is_refused(client: Client, body: bytes, code: int, number: int | None) -> None:
    answers: list[tuple[object, int]] = []
    receive = client._receive

    async def listen(message: dict[str, object]) -> None:
        if isinstance(error := message.get("error"), dict):
            answers.append((message.get("id"), error["code"]))
        await receive(message)

    client._receive = listen  # type: ignore[method-assign]
    client.writer.write(framed(body))
    await client.request("repoformer/why", {})
    assert answers == [(number, code)]


@pytest.mark.parametrize(
    "change",
    [
        {"text": "z", "range": {"start": {"line": 1, "character": 0}, "end": {"line": 2**32 - 1, "character": 0}}},
        {"text": "z", "range": {"start": {"line": 1, "character": -1}, "end": {"line": 2**53, "character": 2**63}}},
        {"text": "x = 1\nz", "range": None},
        {"text": "x = 1\nz", "rangeLength": None},
    ],
)
async def test_edits_as_clients_send_them_are_not_lost(client: Client, change: dict[str, object]) -> None:
    uri = "file:///edited.py"
    client.open(uri, "x = 1\ny = 2\n")
    document = {"uri": uri, "version": None}
    client.notify("textDocument/didChange", {"textDocument": document, "contentChanges": [change]})
    await client.complete(uri, (1, 1))
    await client.complete(uri, (2, 0))
    told = await client.seen("window/logMessage", lambda params: "past the end" in params["message"])
    assert "which has 2 lines" in told["message"]


async def test_before_initialize_nothing_is_answered_but_with_an_error(home: dict[str, str]) -> None:
    client = await Client.spawn([sys.executable, "-m", "lsp_server.cli"], env=home)
    with pytest.raises(Exception, match="not initialized"):
        await client.request("repoformer/why", {})
    await client.initialize([])
    client.notify("initialized", {})  # `Client.initialize` has already sent it
    assert await client.request("repoformer/why", {}) is None
    assert await asyncio.wait_for(client.close(), 30) == 0


async def test_a_line_of_ten_megabytes_is_opened_and_other_documents_do_not_wait(
    start: Start, workspace: Write, marked_model: Path
) -> None:
    place = workspace("#- main.py\ndef area(w, h):\n    return ‸\n")
    client = await start(place.root, model=marked_model, options={"patience": 0.5, "policy": "always"})
    client.open("file:///long.py", "x = " + "a + " * 2_500_000)
    client.open(place.uri, place.text)
    await client.complete(place.uri, place.cursor)
    items = await client.complete("file:///long.py", (0, 10_000_004))
    assert all(len(json.dumps(item)) < 2_000 for item in items)
    assert (await client.why("file:///long.py"))["position"] == {"line": 0, "character": 10_000_004}


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system with names that are not UTF-8")
def test_names_that_are_not_utf8_are_searched_and_shown(tmp_path: Path, home: dict[str, str]) -> None:
    root = tmp_path / "w"
    root.mkdir()
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.py")).write_text("def area_of_circle(radius):\n    return radius\n")
    commands: list[list[str | bytes | Path]] = [
        ["search", root, "--query", "area_of_circle(radius)"],
        ["search", root, "--query", "area_of_circle(radius)", "--json"],
        ["index", root, "--why-not", os.fsencode(root) + b"/caf\xe9.py"],
        ["index", root, "--why-not", os.fsencode(root) + b"/caf\xe9.py", "--json"],
    ]
    for encoding in ("utf-8", "ascii"):
        for arguments in commands:
            env = {**os.environ, **home, "PYTHONIOENCODING": encoding}
            done = subprocess.run(
                [sys.executable, "-m", "lsp_server.cli", *arguments], env=env, stdout=subprocess.PIPE, check=True
            )
            assert b"caf" in done.stdout
            if "--json" in arguments:
                json.loads(done.stdout)
