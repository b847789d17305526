"""The real server on a machine with little memory, and on a machine on battery, both simulated."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.driving import Start, Workspace, ready, shown

Write = Callable[[str], Workspace]
Machine = Callable[[str], dict[str, str]]
COUNTING = """
#- counting.py
ONE = 1
TWO = 2
THREE = ‸
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a function that returns environment variables. With them, each Python process first runs the code `lines`.

    The code is in a `sitecustomize.py`, which Python imports when it starts.
    """

    def machine(lines: str) -> dict[str, str]:
        site = tmp_path / "site"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(lines)
        return {"PYTHONPATH": os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))}

    return machine


async def test_a_model_too_large_for_memory_is_refused_once(
    start: Start, workspace: Write, model: Path, machine: Machine
) -> None:
    place = workspace(COUNTING)
    little = "import psutil\nfree = psutil.virtual_memory()._replace(available=10_000_000)\n"
    client = await start(place.root, model=model, env=machine(little + "psutil.virtual_memory = lambda: free\n"))
    client.open(place.uri, place.text)
    assert await client.complete(place.uri, place.cursor) == []
    assert await client.complete(place.uri, place.cursor) == []
    [told] = shown(client)
    assert "and 0.0 GB are free. Choose a smaller model" in told
    assert (await client.seen("repoformer/status", lambda status: status["state"] == "error"))["message"] == told


UNPLUGGED = """
import psutil
from types import SimpleNamespace
psutil.sensors_battery = lambda: SimpleNamespace(power_plugged=False)
"""


async def test_on_battery_only_what_is_asked_for(start: Start, workspace: Write, model: Path, machine: Machine) -> None:
    place = workspace(COUNTING)
    env = machine(UNPLUGGED)
    client = await start(place.root, model=model, env=env, settings={"onBattery": "invoked"})
    await ready(client)
    client.open(place.uri, place.text)
    assert await client.complete(place.uri, place.cursor, invoked=False) == []
    await client.seen("repoformer/status", lambda status: status["message"].startswith("on battery"))
    assert await client.complete(place.uri, place.cursor, invoked=True)
    stats = (await client.why(place.uri))["stats"]
    assert stats["evaluated_tokens"] == stats["prompt_tokens"], "a part of the prompt was evaluated before the request"
    await client.close()

    client = await start(place.root, model=model, env=env)
    await ready(client)
    client.open(place.uri, place.text)
    assert await client.complete(place.uri, place.cursor, invoked=False), "a battery has an effect without the setting"


async def test_on_battery_no_more_than_a_line(start: Start, workspace: Write, model: Path, machine: Machine) -> None:
    place = workspace("#- loops.py\nfor number in range(10):\n    print(number)\n\n\nfor number in range(20):‸\n")
    for env, settings, several in ((machine(UNPLUGGED), {"onBattery": "smaller"}, False), ({}, {}, True)):
        client = await start(place.root, model=model, env=env, settings=settings)
        await ready(client)
        client.open(place.uri, place.text)
        items = await client.complete(place.uri, place.cursor, invoked=False)
        assert any("\n" in item["insertText"] for item in items) is several
        assert await client.complete(place.uri, place.cursor, invoked=True), "an explicit request has no item"
        await client.close()
