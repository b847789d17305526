"""The real server with the built-in model: which suggestions it shows, and what it learns from their outcomes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lsp_server.client import Client, Message
from lsp_server.outcomes import MIN_VISIBLE
from policy.models import locate
from tests.e2e.driving import SERVER, Start, Workspace, ready

Write = Callable[[str], Workspace]
Learned = Callable[..., Any]

# Any name could be at the cursor, so every model gives each text a low probability.
UNSURE = """
#- secrets.py
NAME = "garden"
PLACE = "‸
"""
# Only one text is plausible at the cursor, so every model gives it a high probability.
SURE = """
#- counting.py
ONE = 1
TWO = 2
THREE = 3
FOUR = 4
FIVE = ‸
"""


@pytest.fixture
def model() -> Path:
    """The built-in model. Its metadata has the formula that estimates whether the user keeps a text."""
    return locate.shipped()[0].path


@pytest.fixture
def learned(home: dict[str, str]) -> Learned:
    """Return a function that runs `repoformer-lsp learned` and returns its output, parsed if it is JSON."""

    def learned(root: Path, *arguments: str) -> Any:
        command = [str(SERVER), "learned", str(root), *arguments]
        printed = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | home).stdout
        return json.loads(printed) if "--json" in arguments else printed

    return learned


def uses(suggest: str, status: Message) -> bool:
    return bool(status["suggest"] == suggest)


async def set_suggest(client: Client, **settings: object) -> None:
    """Change the settings as an editor's menu does, and wait until the server's status reports the new ones."""
    client.settings = settings
    client.received.clear()
    client.notify("workspace/didChangeConfiguration", {"settings": None})
    await client.seen("repoformer/status", partial(uses, str(settings["suggest"])))


async def test_careful_hides_what_eager_shows(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(UNSURE)
    client = await start(place.root, model=model, settings={"suggest": "careful"})
    assert uses("careful", await ready(client))
    client.open(place.uri, place.text)
    assert await client.complete(place.uri, place.cursor, invoked=False) == []
    report = await client.why(place.uri)
    estimate = report["estimate"]
    assert (report["text"], estimate["shown"], estimate["suggest"]) == ("", False, "careful")
    assert 0 < estimate["p"] < estimate["threshold"] < 1
    assert "`suggest: careful`" in report["reason"]

    assert await client.complete(place.uri, place.cursor, invoked=True), "the text of an explicit request is not shown"
    report = await client.why(place.uri)
    assert report["text"]
    assert report["estimate"]["shown"] is False

    await set_suggest(client, suggest="eager")
    assert await client.complete(place.uri, place.cursor, invoked=False)
    estimate = (await client.why(place.uri))["estimate"]
    assert (estimate["threshold"], estimate["shown"], estimate["suggest"]) == (0, True, "eager")


async def test_careful_shows_what_is_sure(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(SURE)
    client = await start(place.root, model=model, settings={"suggest": "careful"})
    await ready(client)
    client.open(place.uri, place.text)
    assert await client.complete(place.uri, place.cursor, invoked=False)
    assert (await client.why(place.uri))["estimate"]["shown"] is True


def everything_in(folder: Path) -> str:
    return "".join(file.read_text("utf-8") for file in folder.rglob("*") if file.is_file())


class Typist:
    """A simulated user, who gets suggestions at one place and accepts them, types other text, or moves the cursor.

    The server learns the outcome of a suggestion from the next request. So each outcome is followed by a request inside
    a word, to which the server answers with no suggestion.
    """

    def __init__(self, client: Client, place: Workspace) -> None:
        self._client, self._uri, self._cursor, self._version = client, place.uri, place.cursor, 1
        client.open(place.uri, place.text)

    async def suggestion(self) -> Message:
        """Request a suggestion explicitly, because the server shows such a suggestion even with a low estimate."""
        item, *_ = await self._client.complete(self._uri, self._cursor)
        return item

    async def threshold(self) -> float:
        """Return the current showing threshold."""
        await self.suggestion()
        threshold: float = (await self._client.why(self._uri))["estimate"]["threshold"]
        return threshold

    async def accept(self) -> None:
        command = (await self.suggestion())["command"]
        taken = {"command": command["command"], "arguments": command["arguments"]}
        await self._client.request("workspace/executeCommand", taken)

    async def type_over(self) -> None:
        await self.suggestion()
        await asyncio.sleep(1.2 * MIN_VISIBLE)
        line, column = self._cursor
        self._replace(column, "zq")
        assert await self._client.complete(self._uri, (line, column + 1), invoked=False) == []
        self._replace(column + 2, "")

    async def dismiss(self) -> None:
        await self.suggestion()
        await asyncio.sleep(1.2 * MIN_VISIBLE)
        assert await self._client.complete(self._uri, (0, 1), invoked=False) == []

    def _replace(self, end: int, text: str) -> None:
        """Replace the text between the cursor and the column `end` of the cursor's line."""
        self._version += 1
        self._client.edit(self._uri, self._version, self._cursor, (self._cursor[0], end), text)


async def counted(learned: Learned, root: Path, total: int) -> tuple[list[int], float]:
    """Wait until `repoformer-lsp learned` reports `total` outcomes or more.

    Return the counts (accepted, typed over, dismissed), and the shift of the showing threshold in log-odds.
    """
    while True:
        told = await asyncio.to_thread(learned, root, "--json")
        counts = [round(told[name]) for name in ("accepted", "typed_over", "dismissed")]
        if sum(counts) >= total:
            return counts, told["shift"]
        await asyncio.sleep(0.05)


async def test_outcomes_shift_the_threshold_of_their_workspace(
    start: Start, workspace: Write, model: Path, home: dict[str, str], learned: Learned, tmp_path: Path
) -> None:
    place = workspace(SURE)
    client = await start(place.root, model=model, settings={"suggest": "balanced"})
    await ready(client)
    typist = Typist(client, place)
    before = await typist.threshold()
    await typist.accept()
    counts, shift = await counted(learned, place.root, 1)
    assert counts == [1, 0, 0]
    assert shift < 0, "more are accepted than expected, but the threshold does not fall"
    lower = await typist.threshold()
    await typist.type_over()
    await typist.dismiss()
    counts, shift = await counted(learned, place.root, 3)
    assert counts == [1, 1, 1]
    assert shift > 0, "fewer are accepted than expected, but the threshold does not rise"
    assert lower < before < await typist.threshold()
    assert f"shifted by {shift:+.2f} log-odds (positive: fewer suggestions are shown)" in learned(place.root)
    assert (await counted(learned, tmp_path, 0)) == ([0, 0, 0], 0), "another workspace has counts"

    state = Path(home["XDG_STATE_HOME"], "repoformer-lsp")
    stored = json.loads((state / "learned.json").read_text("utf-8"))
    assert all(re.fullmatch("[0-9a-f]{32}", key) for key in stored), "a key is not the hash of a path"
    assert {type(value) for counts in stored.values() for value in counts.values()} == {float}, "not only counts"
    assert "FIVE" not in everything_in(state)

    assert "1 workspace" in learned(place.root, "--reset")
    assert (await counted(learned, place.root, 0)) == ([0, 0, 0], 0)
    assert await typist.threshold() == before


async def test_nothing_is_learned_if_it_is_off(start: Start, workspace: Write, model: Path, learned: Learned) -> None:
    place = workspace(SURE)
    client = await start(place.root, model=model, settings={"suggest": "balanced", "learn": False})
    await ready(client)
    typist = Typist(client, place)
    before = await typist.threshold()
    await typist.dismiss()
    await typist.type_over()
    await set_suggest(client, suggest="careful", learn=True)
    await typist.dismiss()
    counts, _ = await counted(learned, place.root, 1)
    assert counts == [0, 0, 1], "an outcome is counted while `learn` is off"
    await set_suggest(client, suggest="balanced", learn=True)
    assert await typist.threshold() > before
    await set_suggest(client, suggest="eager", learn=False)
    await set_suggest(client, suggest="balanced", learn=False)
    assert await typist.threshold() == before, "counts are used while `learn` is off"
