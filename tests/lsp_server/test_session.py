"""The session of one client, in this process and without a model: answers, folders, and the fate of suggestions."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from lsp_server.core import Core
from lsp_server.server import RepoformerServer
from policy.completion.request import Completion, Request
from policy.gating.keep import Estimate
from policy.gating.learned import Outcome

pytestmark = pytest.mark.asyncio
URI = "file:///w/a.py"


class Connection:
    """A server in this process, and what it has sent."""

    def __init__(self) -> None:
        self.server = RepoformerServer()
        self.server.protocol.set_writer(self)
        self.sent: list[dict[str, Any]] = []

    def write(self, data: bytes) -> None:
        self.sent.append(json.loads(data.partition(b"\r\n\r\n")[2]))

    def close(self) -> None:
        pass

    async def send(self, **message: Any) -> None:
        self.server.protocol.receive(json.dumps({"jsonrpc": "2.0", **message}).encode())
        for _ in range(30):
            await asyncio.sleep(0)

    async def begin(self, *roots: Path) -> None:
        """Send `initialize` and `initialized`. The server then waits for the answer to `workspace/configuration`."""
        folders = [{"uri": root.as_uri(), "name": root.name} for root in roots]
        capabilities = {"workspace": {"configuration": True, "workspaceFolders": True}}
        params = {"processId": None, "rootUri": None, "workspaceFolders": folders, "capabilities": capabilities}
        await self.send(id=1, method="initialize", params=params)
        await self.send(method="initialized", params={})

    @property
    def question(self) -> Any:
        """The id of the request `workspace/configuration`."""
        return next(each["id"] for each in self.sent if each.get("method") == "workspace/configuration")

    async def ask(self, character: int, selected: str | None = None) -> None:
        """Request a completion in line 0. `selected` is the text of a menu entry for the last two letters."""
        context: dict[str, Any] = {"triggerKind": 2}
        if selected is not None:
            start, end = ({"line": 0, "character": column} for column in (character - 2, character))
            context["selectedCompletionInfo"] = {"range": {"start": start, "end": end}, "text": selected}
        params = {"textDocument": {"uri": URI}, "position": {"line": 0, "character": character}, "context": context}
        await self.send(id=len(self.sent) + 100, method="textDocument/inlineCompletion", params=params)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that start the index and load the model, which do nothing else."""
    calls: list[str] = []

    async def load(_core: Core) -> None:
        calls.append("model")

    async def offer_nothing(_core: Core) -> None:
        pass

    monkeypatch.setattr(Core, "start", lambda *_: calls.append("index"))
    monkeypatch.setattr(Core, "warm_up", load)
    monkeypatch.setattr(Core, "better_model", offer_nothing)
    return calls


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """The requests for completions, each of which gets the same suggestion."""
    seen: list[Request] = []

    async def suggest(_core: Core, request: Request) -> Completion:
        seen.append(request)
        return Completion("r()", estimate=Estimate(0.4, 0.2, "balanced"))

    monkeypatch.setattr(Core, "complete", suggest)
    return seen


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    outcomes: list[Outcome] = []

    async def learn(_core: Core, _request: Request, outcome: Outcome, _p: float) -> None:
        outcomes.append(outcome)

    monkeypatch.setattr(Core, "learn", learn)
    monkeypatch.setattr("lsp_server.outcomes.MIN_VISIBLE", 0.0)
    return outcomes


@pytest.mark.parametrize(
    ("answer", "policy"),
    [
        ({"result": [{"policy": "always"}]}, "always"),
        ({"result": [{"policy": "always"}], "error": None}, "always"),
        ({"result": None}, "selective"),
        ({}, "selective"),
        ({"result": 3}, "selective"),
        ({"error": {"code": -32601}}, "selective"),
        ({"error": "no such method"}, "selective"),
        ({"error": {"code": "none", "message": 1}}, "selective"),
    ],
)
async def test_every_answer_to_the_settings_starts_the_server(
    started: list[str], answer: dict[str, Any], policy: str
) -> None:
    connection = Connection()
    await connection.begin()
    assert started == []
    await connection.send(id=connection.question, **answer)
    assert started == ["index", "model"]
    assert connection.server.session.settings.policy == policy


@pytest.mark.parametrize("version", [{}, {"version": None}])
async def test_a_document_without_a_version_is_open(started: list[str], version: dict[str, Any]) -> None:
    connection = Connection()
    await connection.begin()
    document = {"uri": URI, "languageId": "python", "text": "foo", **version}
    await connection.send(method="textDocument/didOpen", params={"textDocument": document})
    opened = connection.server.session.document(URI)
    assert opened is not None and opened.text == "foo"


async def test_a_client_that_has_disconnected_starts_nothing(started: list[str]) -> None:
    connection = Connection()
    await connection.begin()
    connection.server.session.stop()
    await connection.send(id=connection.question, result=[{}])
    assert started == []


async def test_a_folder_that_is_removed_and_added_again_stays(started: list[str], tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    connection = Connection()
    await connection.begin(one, two)
    folder = {"uri": one.as_uri(), "name": "another name"}
    event = {"removed": [folder], "added": [folder, folder]}
    await connection.send(method="workspace/didChangeWorkspaceFolders", params={"event": event})
    assert set(connection.server.session.roots) == {one, two}
    assert len(connection.server.session.roots) == 2


async def test_entries_of_the_completion_menu_are_no_outcomes(
    started: list[str], requests: list[Request], learned: list[Outcome]
) -> None:
    connection = Connection()
    await connection.begin()
    await connection.send(id=connection.question, result=[{}])
    document = {"uri": URI, "languageId": "python", "version": 1, "text": "foo.ba"}
    await connection.send(method="textDocument/didOpen", params={"textDocument": document})
    await connection.ask(6)
    for selected in ("bar()", "baz", "ba\r\nx\ud800"):
        await connection.ask(6, selected)
    await connection.ask(6)
    assert [request.cursor.prefix for request in requests] == [
        "foo.ba",
        "foo.bar()",
        "foo.baz",
        "foo.ba\nx\ufffd",
        "foo.ba",
    ]
    assert learned == []
    change = {"textDocument": {"uri": URI, "version": 2}, "contentChanges": [{"text": "foo.bar()"}]}
    await connection.send(method="textDocument/didChange", params=change)
    await connection.ask(9)
    assert learned == ["accepted"]


async def test_a_part_that_is_reported_after_the_whole_text_changes_nothing(
    started: list[str], requests: list[Request], learned: list[Outcome]
) -> None:
    connection = Connection()
    await connection.begin()
    await connection.send(id=connection.question, result=[{}])
    document = {"uri": URI, "languageId": "python", "version": 1, "text": "foo.ba"}
    await connection.send(method="textDocument/didOpen", params={"textDocument": document})
    await connection.ask(6)
    record = connection.server.session.record(URI)
    assert record is not None
    connection.server.session.happened(record.number, "accepted")
    connection.server.session.happened(record.number, "partly accepted")
    after = connection.server.session.record(URI)
    assert after is not None and after.fate == "accepted"
