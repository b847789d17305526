"""Completions that the real server returns to an editor, with a real model and files on disk."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from lsp_server.client import Client, Message, RefusedError
from lsp_server.text import Document, Encoding, units
from policy.gating import calibration
from tests.e2e.driving import Start, Workspace, accepted, ready, shown

Write = Callable[[str], Workspace]
CANCELLED = -32800

COUNTING = """
#- counting.py
ONE = 1
TWO = 2
THREE = 3
FOUR = 4
FIVE = ‸
"""
TWO_FILES = """
#- shapes.py
def rectangle_area(width, height):
    return width * height


def circle_area(radius):
    return 3.14159 * radius * radius
#- main.py
from shapes import circle_area, rectangle_area

width, height, radius = 3, 4, 5
print(rectangle_area(‸
"""
ALWAYS = {"policy": "always"}


async def opened(client: Client, place: Workspace, text: str | None = None) -> None:
    await ready(client)
    client.open(place.uri, place.text if text is None else text)


async def test_open_type_complete_accept(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(COUNTING)
    client = await start(place.root, model=model, encodings=["utf-32"])
    await opened(client, place)
    item, *_ = await client.complete(place.uri, place.cursor)
    assert accepted(place.text, item).startswith("ONE = 1\nTWO = 2\nTHREE = 3\nFOUR = 4\nFIVE = 5")

    line = place.cursor[0]
    client.edit(place.uri, 2, place.cursor, place.cursor, "5\nSIX = ")
    text = place.text.replace("FIVE = ", "FIVE = 5\nSIX = ")
    [item] = await client.complete(place.uri, (line + 1, 6), invoked=False)
    assert accepted(text, item).startswith(text.rstrip("\n") + "6"), "the item does not continue the typed text"

    report = await client.why(place.uri)
    assert report["text"] == item["insertText"].removeprefix("SIX = ")
    assert report["decision"].keys() == {"p_retrieve", "threshold", "retrieve", "source", "held", "deferred"}
    assert report["timings_ms"]["total"] > 0
    assert report["stats"]["generated_tokens"] > 0
    assert report["model"] == model.stem
    assert report["position"] == {"line": line + 1, "character": 6}


async def test_a_keystroke_evaluates_few_tokens_again(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(COUNTING)
    client = await start(place.root, model=model, settings={"policy": "never"})
    await opened(client, place)
    await client.complete(place.uri, place.cursor)
    line, column = place.cursor
    client.edit(place.uri, 2, place.cursor, place.cursor, "(")
    await client.complete(place.uri, (line, column + 1))
    stats = (await client.why(place.uri))["stats"]
    assert stats["evaluated_tokens"] < 16 < stats["prompt_tokens"]


async def test_at_the_cursor_of_the_document_in_front_is_read_ahead(
    start: Start, workspace: Write, model: Path
) -> None:
    place = workspace(COUNTING)
    client = await start(place.root, model=model, settings={"policy": "never"})
    await ready(client)
    evaluated = []
    # Pauses in seconds. The server does not report when it has evaluated a prompt, so longer pauses follow shorter ones
    # until one is long enough for this machine.
    for pause in (1, 4, 16, 64):
        lines = "".join(f"VALUE_{pause}_{number} = {number}\n" for number in range(20))
        uri, cursor = (place.root / f"opened_{pause}.py").as_uri(), (20, 8)
        client.open(uri, f"{lines}TOTAL = \n{lines}")
        client.notify("textDocument/didFocus", {"textDocument": {"uri": uri}, "position": {"line": 20, "character": 8}})
        await asyncio.sleep(pause)
        await client.complete(uri, cursor, invoked=False)
        stats = (await client.why(uri))["stats"]
        evaluated.append((stats["evaluated_tokens"], stats["prompt_tokens"]))
        if 4 * stats["evaluated_tokens"] < stats["prompt_tokens"]:
            return
    pytest.fail(f"no prompt was evaluated in advance; (evaluated after the request, in the prompt): {evaluated}")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
async def test_positions_behind_wide_characters(
    start: Start, workspace: Write, model: Path, encoding: Encoding
) -> None:
    place = workspace(COUNTING.replace("FIVE = ", "n = '😀e\u0301漢'; FIVE = "))
    client = await start(place.root, model=model, encodings=[encoding])
    await opened(client, place)
    line = place.text.split("\n")[place.cursor[0]]
    column = units(line, encoding)
    item, *_ = await client.complete(place.uri, (place.cursor[0], column))
    assert item["range"]["start"] == {"line": place.cursor[0], "character": 0}
    assert item["range"]["end"] == {"line": place.cursor[0], "character": column}
    assert item["insertText"].startswith(line)
    assert len(item["insertText"]) > len(line)


async def test_a_cancelled_request_is_answered_and_frees_the_engine(
    start: Start, workspace: Write, model: Path
) -> None:
    place = workspace(COUNTING)
    long = "".join(f"VALUE_{number} = {number} * {number}\n" for number in range(2000)) + place.text
    client = await start(place.root, model=model)
    await opened(client, place, long)
    line = long.count("\n") - 1
    number, items = client.ask_completion(place.uri, (line, 7))
    await client.seen("repoformer/status", lambda status: status["state"] == "generating")
    client.cancel(number)
    with pytest.raises(RefusedError) as refused:
        await items
    assert refused.value.code == CANCELLED
    assert await client.complete(place.uri, (line, 7)), "the next request has no item"


async def test_closing_a_document_cancels_its_request_and_drops_its_record(
    start: Start, workspace: Write, model: Path
) -> None:
    place = workspace(COUNTING)
    long = "".join(f"VALUE_{number} = {number} * {number}\n" for number in range(2000)) + place.text
    client = await start(place.root, model=model)
    await opened(client, place)
    assert await client.complete(place.uri, place.cursor)
    assert await client.why(place.uri)
    client.edit(place.uri, 2, (0, 0), (0, 0), long)
    _, items = client.ask_completion(place.uri, (long.count("\n") - 1, 7))
    await client.seen("repoformer/status", lambda status: status["state"] == "generating")
    client.close_document(place.uri)
    with pytest.raises(RefusedError) as refused:
        await items
    assert refused.value.code == CANCELLED
    assert await client.why(place.uri) is None
    client.open(place.uri, place.text)
    assert await client.complete(place.uri, place.cursor), "the next request has no item"


async def test_a_newer_request_for_a_document_cancels_the_older(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(COUNTING)
    client = await start(place.root, model=model)
    await opened(client, place)
    asked = [client.ask_completion(place.uri, place.cursor, invoked=False)[1] for _ in range(6)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(answer, RefusedError) and answer.code == CANCELLED for answer in answers[:-1]] == [True] * 5
    assert isinstance(answers[-1], list) and answers[-1]


async def test_a_file_changed_on_disk_is_retrieved(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(TWO_FILES)
    client = await start(place.root, model=model, settings=ALWAYS)
    await opened(client, place)
    await client.complete(place.uri, place.cursor)
    report = await client.why(place.uri)
    assert {chunk["path"] for chunk in report["chunks"]} == {"shapes.py"}
    decision = report["decision"]
    assert (decision["retrieve"], decision["source"], decision["p_retrieve"]) == (True, "policy", 1.0)

    (place.root / "painting.py").write_text(
        "from shapes import circle_area, rectangle_area\n\n\ndef paint(width, height, radius):\n"
        "    print(rectangle_area(width, height), circle_area(radius))\n"
    )
    report = await retrieved(client, place, "painting.py")
    chunk = next(chunk for chunk in report["chunks"] if chunk["path"] == "painting.py")
    assert chunk["uri"] == (place.root / "painting.py").as_uri()
    assert chunk["range"]["start"]["line"] == chunk["start_line"] - 1
    assert chunk["score"] > 0


async def test_what_is_typed_in_another_buffer_shadows_its_file(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(TWO_FILES)
    client = await start(place.root, model=model, settings=ALWAYS)
    await opened(client, place)
    shapes = (place.root / "shapes.py").as_uri()
    client.open(shapes, "\n" * 40 + "def rectangle_area(width, height, radius):\n    return width * height\n")
    report = await retrieved(client, place, "shapes.py", lambda chunk: chunk["start_line"] > 40)
    assert all(chunk["start_line"] > 40 for chunk in report["chunks"])
    client.settings = {**ALWAYS, "exclude": ["nothing/**"]}  # the server makes another index for these settings
    client.notify("workspace/didChangeConfiguration", {"settings": None})
    await retrieved(client, place, "shapes.py", lambda chunk: chunk["start_line"] > 40)
    assert all(chunk["start_line"] > 40 for chunk in (await client.why(place.uri))["chunks"])
    client.close_document(shapes)
    await retrieved(client, place, "shapes.py", lambda chunk: chunk["start_line"] < 40)


async def test_a_folder_that_is_added_is_retrieved_from(
    start: Start, workspace: Write, model: Path, tmp_path: Path
) -> None:
    place = workspace(TWO_FILES)
    (place.root / "shapes.py").rename(tmp_path / "shapes.py")
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "shapes.py").rename(other / "shapes.py")
    client = await start(place.root, model=model, settings=ALWAYS)
    await opened(client, place)
    await client.complete(place.uri, place.cursor)
    assert (await client.why(place.uri))["chunks"] == []
    folder = {"uri": other.as_uri(), "name": "other"}
    client.notify("workspace/didChangeWorkspaceFolders", {"event": {"added": [folder], "removed": []}})
    await retrieved(client, place, "shapes.py")
    client.notify("workspace/didChangeWorkspaceFolders", {"event": {"added": [], "removed": [folder]}})
    await retrieved(client, place, "")


async def test_files_that_are_no_text_are_no_hindrance(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(TWO_FILES)
    (place.root / "binary.py").write_bytes(bytes(range(256)) * 20)
    (place.root / "latin.py").write_bytes("# Größe: rectangle_area(width, height)\nGRÖSSE = 1\n".encode("latin-1"))
    client = await start(place.root, model=model, settings=ALWAYS)
    await opened(client, place)
    await retrieved(client, place, "shapes.py")
    client.open((place.root / "latin.py").as_uri(), "# Gr\ufffd\ufffde\nx = ")
    await client.complete((place.root / "latin.py").as_uri(), (1, 4))
    assert shown(client) == []


async def test_wrong_settings_do_not_keep_it_from_completing(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(COUNTING)
    client = await start(place.root, model=model, settings={"threads": "four", "contextSize": [], "chunks": None})
    await opened(client, place)
    assert await client.complete(place.uri, place.cursor)
    assert len(shown(client)) == 1


async def test_a_model_setting_that_is_corrected_helps_at_once(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(COUNTING)
    client = await start(place.root, settings={"model": "/nowhere.gguf"})
    client.open(place.uri, place.text)
    assert await client.complete(place.uri, place.cursor) == []
    client.settings = {"model": str(model)}
    client.notify("workspace/didChangeConfiguration", {"settings": None})
    await ready(client)
    assert await client.complete(place.uri, place.cursor)


async def test_settings_count_from_the_next_request_on(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(TWO_FILES)
    client = await start(place.root, model=model, settings={"disabledLanguages": ["python"]})
    await opened(client, place)
    assert await client.complete(place.uri, place.cursor) == []
    for settings, retrieves in (({"policy": "never"}, False), (ALWAYS, True)):
        client.settings = settings
        client.notify("workspace/didChangeConfiguration", {"settings": None})
        await client.seen("repoformer/status", partial(has_policy, settings["policy"]))
        await client.complete(place.uri, place.cursor)
        assert (await client.why(place.uri))["decision"]["retrieve"] is retrieves


async def test_an_entry_selected_in_the_popup_is_extended(start: Start, workspace: Write, model: Path) -> None:
    place = workspace("#- main.py\nnumbers = [1, 2, 3]\nprint(len(num‸\n")
    client = await start(place.root, model=model)
    await opened(client, place)
    line, column = place.cursor
    start_of_word = {"line": line, "character": column - 3}
    info = {"range": {"start": start_of_word, "end": {"line": line, "character": column}}, "text": "numbers"}
    _, items = client.ask_completion(place.uri, place.cursor, selected=info)
    item, *_ = await items
    assert item["range"] == info["range"]
    assert item["insertText"].startswith("numbers")
    assert len(item["insertText"]) > len("numbers")


async def test_line_ends_of_windows(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(COUNTING)
    text = place.text.replace("\n", "\r\n")
    client = await start(place.root, model=model)
    await opened(client, place, text)
    item, *_ = await client.complete(place.uri, place.cursor)
    assert item["insertText"].startswith("FIVE = 5")
    assert "\r" not in item["insertText"]
    before = Document.of(place.uri, text)
    assert item["range"]["end"]["character"] == len(before.lines[place.cursor[0]].rstrip("\r\n"))


async def test_what_becomes_of_a_suggestion_is_known(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(COUNTING)
    client = await start(place.root, model=model)
    await opened(client, place)
    assert "repoformer.accepted" in client.capabilities["executeCommandProvider"]["commands"]
    item, *_ = await client.complete(place.uri, place.cursor)
    assert (await client.why(place.uri))["fate"] == "offered"
    client.notify("textDocument/didShowCompletion", {"item": item})
    assert (await client.why(place.uri))["fate"] == "shown"
    client.notify("textDocument/didPartiallyAcceptCompletion", {"item": item, "acceptedLength": 1})
    assert (await client.why(place.uri))["fate"] == "partly accepted"
    command = {"command": item["command"]["command"], "arguments": item["command"]["arguments"]}
    assert await client.request("workspace/executeCommand", command) is None
    assert (await client.why(place.uri))["fate"] == "accepted"
    for senseless in ({}, {"item": 3}, {"item": {"command": {"arguments": ["x"]}}}):
        client.notify("textDocument/didShowCompletion", senseless)
    assert (await client.why(place.uri))["fate"] == "accepted"


async def test_what_follows_an_acceptance_is_completed_ahead(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(COUNTING)
    client = await start(place.root, model=model, encodings=["utf-32"])
    await opened(client, place)
    item, *_ = await client.complete(place.uri, place.cursor)
    taken = {"command": item["command"]["command"], "arguments": item["command"]["arguments"]}
    await client.request("workspace/executeCommand", taken)
    begin, end = ((at["line"], at["character"]) for at in (item["range"]["start"], item["range"]["end"]))
    client.edit(place.uri, 2, begin, end, item["insertText"])
    lines = item["insertText"].split("\n")
    behind = (begin[0] + len(lines) - 1, len(lines[-1]) + (begin[1] if len(lines) == 1 else 0))
    await client.complete(place.uri, behind, invoked=False)
    report = await client.why(place.uri)
    assert report["position"] == {"line": behind[0], "character": behind[1]}
    assert report["stats"].keys() & {"reused", "joined"}, "the completion was not generated in advance"


async def test_progress_and_status_are_shown_from_start_to_ready(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(COUNTING)
    client = await start(place.root, model=model)
    status = await ready(client)
    assert status["model"] == model.stem
    states = [sent["params"]["state"] for sent in client.received if sent["method"] == "repoformer/status"]
    assert states[0] == "starting" and states[-1] == "ready"
    begun = [
        sent["params"]["token"]
        for sent in client.received
        if sent["method"] == "$/progress" and sent["params"]["value"]["kind"] == "begin"
    ]
    assert begun
    for token in begun:
        ended = {"token": token, "value": {"kind": "end"}}
        await client.seen("$/progress", partial(operator.eq, ended))


def has_policy(policy: str, status: Message) -> bool:
    return bool(status["policy"] == policy)


async def retrieved(
    client: Client, place: Workspace, path: str, where: Callable[[Message], bool] = lambda chunk: True
) -> Message:
    """Request completions until a chunk of `path` for which `where` is true is retrieved. Return the report of it.

    With an empty `path`, wait until a completion has no chunks.
    """
    for _ in range(200):
        await client.complete(place.uri, place.cursor)
        report: Message = await client.why(place.uri)
        found = [chunk for chunk in report["chunks"] if chunk["path"] == path and where(chunk)]
        if found or (not path and not report["chunks"]):
            return report
        await asyncio.sleep(0.1)
    raise AssertionError(f"{path or 'nothing'} was never retrieved; the last chunks: {report['chunks']}")


async def test_a_workspace_is_served_with_the_threshold_it_was_calibrated_to(
    start: Start, workspace: Write, model: Path, home: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test stores and removes a calibrated threshold while the server runs."""
    monkeypatch.setattr(calibration, "file", lambda: Path(home["XDG_DATA_HOME"], "repoformer-lsp", "thresholds.json"))
    place = workspace(TWO_FILES)
    client = await start(place.root, model=model)
    await opened(client, place)

    async def threshold() -> float:
        await client.complete(place.uri, place.cursor)
        decision = (await client.why(place.uri))["decision"]
        assert decision["source"] == "similarity"
        assert decision["retrieve"] == (decision["p_retrieve"] > decision["threshold"])
        return float(decision["threshold"])

    default = await threshold()
    mine = calibration.Calibration(0.875, model.name, calibration.fingerprint(model), 40, "2026-01-01")
    calibration.store(place.root, mine)
    assert await threshold() == 0.875
    calibration.store(place.root, replace(mine, sha256="of another model", threshold=0.5))
    assert await threshold() == default
    calibration.undo(place.root)
    assert await threshold() == 0.875
    calibration.undo(place.root)
    assert await threshold() == default
