"""`serve --trace FILE`: a trace of a real server in the Chrome trace format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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


class Span(NamedTuple):
    name: str
    message: int
    begin: int
    end: int


def nested(events: list[dict[str, Any]]) -> list[Span]:
    """Return the spans of a trace, and check that those of one thread are nested, as viewers require."""
    found: list[Span] = []
    lanes: dict[int, list[dict[str, Any]]] = {}
    for event in events:
        open_spans = lanes.setdefault(event["tid"], [])
        match event["ph"]:
            case "B":
                assert not open_spans or event["ts"] >= open_spans[-1]["ts"]
                open_spans.append(event)
            case "E":
                begun = open_spans.pop()
                assert begun["name"] == event["name"]
                found.append(Span(event["name"], begun["args"]["message"], begun["ts"], event["ts"]))
            case "X":
                end = event["ts"] + event["dur"]
                assert open_spans and open_spans[-1]["ts"] <= event["ts"]
                found.append(Span(event["name"], event["args"]["message"], event["ts"], end))
    assert not any(lanes.values()), "each span has an end"
    return found


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
    spans = nested(events)
    [request] = [span for span in spans if span.name == METHOD]
    inside = [span for span in spans if span.message == request.message]
    names = {span.name for span in inside}
    assert {"message", "parse message", "completion", "generation", "engine: generate", "send answer"} <= names
    assert {"queue", "prompt", "read", "choose"} <= names, "the spans of the worker"
    [generate] = [span for span in inside if span.name == "engine: generate"]
    [prompt] = [span for span in inside if span.name == "prompt" and generate.begin <= span.begin <= generate.end]
    assert request.begin <= generate.begin <= prompt.begin <= prompt.end <= generate.end
    assert any(event["ph"] == "i" and event["name"] == "answer" for event in events)
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
