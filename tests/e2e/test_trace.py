"""`serve --trace FILE`: a trace of a real server in the Chrome trace format."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lsp_server.client import Client
from policy.models import locate
from tests.e2e.driving import SERVER, Workspace, ready

Write = Callable[[str], Workspace]
METHOD = "textDocument/inlineCompletion"
CODE = """
#- secret_garden.py
def rectangle_area(width: float, height: float) -> float:
    return width * height


area_of_the_bed = rectangle_area(‸
"""


def events_of(trace: Path) -> list[dict[str, Any]]:
    """Return the events of a trace whose array is not closed."""
    events: list[dict[str, Any]] = json.loads(trace.read_text("utf-8").rstrip().rstrip(",") + "]")
    return events


async def test_a_trace_shows_the_stages_of_a_request(home: dict[str, str], workspace: Write, tmp_path: Path) -> None:
    place, trace = workspace(CODE), tmp_path / "trace.json"
    command: list[str | Path] = [SERVER, "--model", locate.shipped()[0].path, "--trace", trace]
    client = await Client.spawn(command, env=home)
    await client.initialize([place.root], options={"patience": 60, "suggest": "eager"})
    client.open(place.uri, place.text, "python")
    await ready(client)
    assert await client.complete(place.uri, place.cursor)
    assert await client.close() == 0

    events = events_of(trace)
    begun = Counter((event["id"], event["name"]) for event in events if event["ph"] == "b")
    ended = Counter((event["id"], event["name"]) for event in events if event["ph"] == "e")
    assert begun == ended, "each span has an end"
    [track] = {event["id"] for event in events if event["name"] == METHOD}
    of_request = [event for event in events if event["id"] == track]
    names = [event["name"] for event in of_request]
    assert names[0] == METHOD
    assert {"generation", "engine: generate", "answer"} <= set(names)
    begin, end = (names.index(METHOD), len(names) - 1 - names[::-1].index(METHOD))
    assert begin < names.index("generation") < names.index("engine: generate") < names.index("answer") < end
    times = [event["ts"] for event in events]
    assert times == sorted(times)
    written = trace.read_text("utf-8")
    assert "secret_garden" not in written and "rectangle" not in written and "width" not in written


async def test_a_killed_server_leaves_a_readable_trace(home: dict[str, str], workspace: Write, tmp_path: Path) -> None:
    place, trace = workspace(CODE), tmp_path / "trace.json"
    client = await Client.spawn([SERVER, "--model", locate.shipped()[0].path, "--trace", trace], env=home)
    await client.initialize([place.root])
    await ready(client)
    assert client.process is not None
    client.process.kill()
    await client.process.wait()
    assert {"initialize", "initialized"} <= {event["name"] for event in events_of(trace)}


@pytest.mark.parametrize("place", ["missing/trace.json", "."])
async def test_a_trace_that_cannot_be_written(home: dict[str, str], tmp_path: Path, place: str) -> None:
    client = await Client.spawn([SERVER, "--trace", tmp_path / place], env=home)
    assert client.process is not None
    assert await client.process.wait() == 1
