"""The completion list for editors without ghost text. The tests use the protocol, not an editor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lsp_server.client import Client
from tests.editors.wire import SERVER
from tests.editors.workspace import FILES, SETTINGS


async def completed(home: dict[str, str], folder: Path, model: Path, typed: str, **options: Any) -> tuple[Any, Any]:
    """Type `typed` at the end of `beds.py`. Return the server's capabilities and its completion list."""
    client = await Client.spawn([SERVER, "--model", model], env=home)
    await client.initialize([folder], options=SETTINGS | options)
    uri = (folder / "beds.py").as_uri()
    text = FILES["beds.py"] + typed
    client.open(uri, text)
    result = None
    if "completionProvider" in client.capabilities:
        place = {"line": text.count("\n"), "character": len(typed)}
        result = await client.request("textDocument/completion", {"textDocument": {"uri": uri}, "position": place})
    capabilities = client.capabilities
    await client.close()
    return capabilities, result


@pytest.mark.parametrize(("typed", "word"), [("area = rectangle_area(", ""), ("area = rectangle_area(wid", "wid")])
async def test_a_suggestion_replaces_the_word_at_the_cursor(
    home: dict[str, str], folder: Path, model: Path, typed: str, word: str
) -> None:
    _, result = await completed(home, folder, model, typed, completion=True)
    [entry] = result["items"]
    assert result["isIncomplete"] is True
    assert entry["textEdit"]["newText"].startswith(word) and len(entry["textEdit"]["newText"]) > len(word)
    assert entry["filterText"] == entry["textEdit"]["newText"]
    start, end = entry["textEdit"]["range"]["start"], entry["textEdit"]["range"]["end"]
    assert (start["character"], end["character"]) == (len(typed) - len(word), len(typed))
    assert entry["command"]["command"] == "repoformer.accepted"


async def test_it_is_offered_only_where_it_is_wanted(home: dict[str, str], folder: Path, model: Path) -> None:
    capabilities, _ = await completed(home, folder, model, "")
    assert "completionProvider" not in capabilities
