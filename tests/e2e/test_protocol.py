"""The protocol of the real server without a model: the handshake, documents, settings, and wrong messages."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lsp_server.client import Client, RefusedError
from lsp_server.text import Encoding
from tests.e2e.driving import SERVER, Start, Workspace, all_gone, family_of, logged, shown

Write = Callable[[str], Workspace]
ONE_FILE = """
#- main.py
x = ‸1
"""


@pytest.mark.parametrize(
    ("offered", "expect"),
    [
        (["utf-16"], "utf-16"),
        (["utf-8", "utf-16"], "utf-8"),
        (["utf-32", "utf-8", "utf-16"], "utf-32"),
        (["utf-7"], "utf-16"),
    ],
)
async def test_the_clients_preferred_encoding_is_taken(
    start: Start, workspace: Write, offered: list[str], expect: str
) -> None:
    client = await start(workspace(ONE_FILE).root, encodings=offered)
    assert client.capabilities["positionEncoding"] == expect


async def test_what_is_offered(start: Start, workspace: Write) -> None:
    client = await start(workspace(ONE_FILE).root)
    assert client.capabilities["inlineCompletionProvider"] == {}
    assert client.capabilities["textDocumentSync"]["change"] == 2
    assert client.capabilities["workspace"]["workspaceFolders"]["changeNotifications"] is True
    asked = await client.seen("workspace/configuration")
    assert asked["items"] == [{"section": "repoformer"}]
    await client.seen("client/registerCapability")
    registered = [
        each["method"]
        for message in client.received
        if message.get("method") == "client/registerCapability"
        for each in message["params"]["registrations"]
    ]
    # The server does not ask the client to watch files, because the index watches them itself.
    assert registered == ["workspace/didChangeConfiguration"]


async def test_a_client_that_can_little_is_asked_for_nothing(start: Start, workspace: Write) -> None:
    root = workspace(ONE_FILE).root
    bare: dict[str, object] = {"workspace": {}, "window": {}, "general": {}}
    client = await start(root, model=root / "absent.gguf", capabilities=bare)
    await client.seen("repoformer/status", lambda status: status["state"] == "error")
    asked = {message["method"] for message in client.received if "id" in message}
    assert asked == set()


async def test_without_a_model_it_says_what_to_do_once(start: Start, workspace: Write) -> None:
    place = workspace(ONE_FILE)
    client = await start(place.root, model=place.root / "absent.gguf")
    client.open(place.uri, place.text)
    for _ in range(3):
        assert await client.complete(place.uri, place.cursor) == []
    status = await client.seen("repoformer/status", lambda status: status["state"] == "error")
    assert "leave it empty to use the default model" in status["message"]
    assert shown(client) == [status["message"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "Correct the setting `model`"),
        (b"", "damaged or incomplete"),
        (b"PK\3\4 not a model at all", "not a GGUF file"),
    ],
)
async def test_a_wrong_model_file_is_named(
    start: Start, workspace: Write, tmp_path: Path, content: bytes | None, message: str
) -> None:
    place = workspace(ONE_FILE)
    path = tmp_path / "wrong.gguf"
    if content is not None:
        path.write_bytes(content)
    client = await start(place.root, settings={"model": str(path)})
    status = await client.seen("repoformer/status", lambda status: status["state"] == "error")
    assert message in status["message"] and str(path) in status["message"]
    client.open(place.uri, place.text)
    assert await client.complete(place.uri, place.cursor) == []
    assert shown(client) == [status["message"]]


async def test_wrong_settings_are_named_together_and_once(start: Start, workspace: Write) -> None:
    wrong = {"threads": "four", "policy": "sometimes", "chunks": 3}
    client = await start(workspace(ONE_FILE).root, settings=wrong, options={"gpuLayers": "all"})
    told = await client.seen("window/showMessage", lambda params: "threads" in params["message"])
    for name in ("repoformer.threads", "repoformer.policy", "repoformer.gpuLayers"):
        assert name in told["message"]
    assert "chunks" not in told["message"]

    client.notify("workspace/didChangeConfiguration", {"settings": None})
    client.settings = {"threads": 2}
    client.notify("workspace/didChangeConfiguration", {"settings": None})
    await client.request("repoformer/why", {})
    mentions = [text for text in shown(client) if "repoformer.threads" in text]
    assert len(mentions) == 1
    await client.seen(
        "window/showMessage",
        lambda params: "gpuLayers" in params["message"] and "threads" not in params["message"],
    )


async def test_settings_sent_along_are_taken(start: Start, workspace: Write) -> None:
    client = await start(workspace(ONE_FILE).root, capabilities={"workspace": {}})
    client.notify("workspace/didChangeConfiguration", {"settings": {"repoformer": {"enabled": False}}})
    await client.seen("repoformer/status", lambda status: status["state"] == "off")


async def test_a_change_that_does_not_mention_our_settings_leaves_them(start: Start, workspace: Write) -> None:
    client = await start(workspace(ONE_FILE).root, capabilities={"workspace": {}})
    client.notify("workspace/didChangeConfiguration", {"settings": {"repoformer": {"enabled": False}}})
    await client.seen("repoformer/status", lambda status: status["state"] == "off")
    client.notify("workspace/didChangeConfiguration", {"settings": {"another": {"section": 1}}})
    await client.request("repoformer/why", {})
    states = [sent["params"]["state"] for sent in client.received if sent["method"] == "repoformer/status"]
    assert states[-1] == "off"


async def test_a_request_sees_the_text_it_was_sent_behind(start: Start, workspace: Write) -> None:
    """A request sees the document as it was when the request was sent, even if the next edit arrives with it."""
    place = workspace("#- main.py\na = 1\nb = 2\nc = ‸3\n")
    client = await start(place.root)
    client.open(place.uri, place.text)
    writer, sent = client.writer, bytearray()
    client.writer = SimpleNamespace(write=sent.extend)  # type: ignore[assignment]
    _, items = client.ask_completion(place.uri, place.cursor)
    client.edit(place.uri, 2, (0, 0), (3, 0), "")
    client.writer = writer
    writer.write(sent)
    assert await items == []
    assert await client.complete(place.uri, place.cursor) == []
    past = [message for message in client.received if "past the end" in str(message.get("params"))]
    assert len(past) == 1, "the first request does not see the text before the edit"


async def test_documents_and_positions_that_are_not_there(start: Start, workspace: Write) -> None:
    place = workspace(ONE_FILE)
    client = await start(place.root)
    assert await client.complete("file:///never/opened.py", (0, 0)) == []
    await logged(client, "file:///never/opened.py was never opened")
    client.open(place.uri, place.text)
    assert await client.complete(place.uri, (99, 0)) == []
    await logged(client, "line 99 is past the end of the document")
    client.edit("file:///never/opened.py", 2, (0, 0), (0, 0), "x")
    assert await client.request("repoformer/why", {"textDocument": {"uri": place.uri}}) is None


@pytest.mark.parametrize(
    "params",
    [
        {},
        None,
        {"textDocument": {"uri": "file:///a"}, "position": {"line": -1, "character": 0}, "context": {"triggerKind": 1}},
        {
            "textDocument": {"uri": "file:///a"},
            "position": {"line": "x", "character": 0},
            "context": {"triggerKind": 9},
        },
    ],
)
async def test_requests_that_make_no_sense_are_answered(start: Start, workspace: Write, params: Any) -> None:
    client = await start(workspace(ONE_FILE).root)
    with pytest.raises(RefusedError):
        await asyncio.wait_for(client.request("textDocument/inlineCompletion", params), 20)
    assert await client.request("repoformer/why", {}) is None, "the server does not answer"
    assert not [text for text in shown(client) if "rror" in text]


async def test_bytes_that_are_no_message_are_passed_over(start: Start, workspace: Write) -> None:
    client = await start(workspace(ONE_FILE).root)
    client.writer.write(b"Content-Length: 5\r\n\r\nhello")
    client.writer.write(b'Content-Length: 4\r\nContent-Type: x\r\n\r\n"hi"')
    assert await client.request("repoformer/why", {}) is None
    assert shown(client) == [text for text in shown(client) if "model" in text]


async def test_unknown_methods_are_refused_or_ignored(start: Start, workspace: Write) -> None:
    client = await start(workspace(ONE_FILE).root)
    with pytest.raises(RefusedError) as refused:
        await client.request("textDocument/neverHeardOf", {})
    assert refused.value.code == -32601
    client.notify("$/neverHeardOf", {})
    assert await client.request("repoformer/why", {}) is None


async def test_a_workspace_that_is_gone(start: Start, tmp_path: Path) -> None:
    client = await start(tmp_path / "gone")
    told = await client.seen("window/showMessage", lambda params: "gone" in params["message"])
    assert "do not exist and are not indexed" in told["message"]
    assert await client.request("repoformer/why", {}) is None


async def test_exit_without_shutdown_is_an_error_and_leaves_nothing(start: Start, workspace: Write) -> None:
    client = await start(workspace(ONE_FILE).root)
    assert client.process is not None
    family = family_of(client.process.pid)
    client.notify("exit", None)
    assert await asyncio.wait_for(client.ended(), 20) == 1
    await all_gone(family)


def log_text(home: dict[str, str]) -> str:
    """Return the text of all log files of the server in a home directory."""
    return "".join(path.read_text("utf-8") for path in Path(home["XDG_STATE_HOME"]).rglob("server-*.log"))


async def test_the_log_file_holds_no_source_code(start: Start, workspace: Write, home: dict[str, str]) -> None:
    place = workspace("#- main.py\ntop_secret = ‸\n")
    client = await start(place.root)
    client.open(place.uri, place.text)
    client.edit(place.uri, 2, (0, 0), (0, 0), "also_secret\n")
    await client.complete(place.uri, place.cursor)
    with pytest.raises(RefusedError):
        await client.request("textDocument/inlineCompletion", {"text": "also_secret"})
    await client.close()
    text = log_text(home)
    assert "client: repoformer-lsp's own client" in text
    assert "secret" not in text
    forwarded = [message for message in client.received if message["method"] == "window/logMessage"]
    assert "secret" not in json.dumps(forwarded)


async def test_over_tcp_each_connection_is_a_session(home: dict[str, str], workspace: Write) -> None:
    place = workspace(ONE_FILE)
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        SERVER, "--tcp", f"localhost:{port}", env=home, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    assert b"listening on" in await process.stderr.readline()
    one, two = [await Client.connect("localhost", port) for _ in range(2)]
    encodings: tuple[tuple[Client, Encoding], ...] = ((one, "utf-8"), (two, "utf-32"))
    for client, encoding in encodings:
        answer = await client.initialize([place.root], encodings=[encoding])
        assert answer["capabilities"]["positionEncoding"] == encoding
    family = family_of(process.pid)
    assert await one.close() == 0
    assert await two.request("repoformer/why", {}) is None, "the other server does not answer"
    assert await two.close() == 0
    assert await asyncio.wait_for(process.wait(), 20) == 0
    await all_gone(family)
