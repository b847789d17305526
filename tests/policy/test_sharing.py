"""Several servers of one user share an engine with a real model. In these tests, a `Supervisor` is a server."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from indexer.model import Cursor
from policy.engine.client import Engine
from policy.engine.messages import GenerationRequest
from policy.engine.settings import EngineSettings
from policy.engine.supervisor import Supervisor

SETTINGS = EngineSettings(context_size=1024, threads=2)
SHORT = Cursor("/w/a.py", "import os\n\n\ndef size_of(path):\n    return os.stat(path).", "\n", "python")
OTHER = Cursor("/w/a.py", "class Stack:\n    def __init__(self):\n        self.items = ", "\n", "python")
LONG = Cursor("/w/b.py", "".join(f"value_{n} = {n * 7919}\n" for n in range(60)), "", "python")
BUDGETS = {"left": 640, "right": 32, "context": 32}

Enter = Callable[..., Supervisor]


@pytest.fixture
async def enter(model: Path) -> AsyncIterator[Enter]:
    """Return a function that starts another server. After the test, servers disconnect, and the engines must end."""
    inside: list[Supervisor] = []

    def enter(settings: EngineSettings = SETTINGS) -> Supervisor:
        inside.append(Supervisor(model, settings, budgets=BUDGETS))
        return inside[-1]

    yield enter
    engines = [psutil.Process(pid) for pid in {each.pid for each in inside if each.pid is not None}]
    for each in inside:
        await each.close()
    _, alive = await asyncio.to_thread(psutil.wait_procs, engines, 20)
    assert alive == []


async def text_of(engine: Engine, slot: str, cursor: Cursor) -> str:
    return "".join([piece async for piece in engine.generate(GenerationRequest(slot, cursor, None, 8))])


async def test_servers_that_start_at_the_same_time_share_one_engine(enter: Enter) -> None:
    servers = [enter() for _ in range(4)]
    engines = await asyncio.gather(*(server.engine() for server in servers))
    assert len({engine.pid for engine in engines}) == 1
    assert all(server.info == servers[0].info for server in servers)


async def test_other_parameters_start_another_engine(enter: Enter) -> None:
    one, other = await enter().engine(), await enter(replace(SETTINGS, context_size=768)).engine()
    assert one.pid != other.pid


async def test_slots_are_separate_and_common_prefixes_are_shared(enter: Enter) -> None:
    a, b = await enter().engine(), await enter().engine()
    first, second = await text_of(a, "slot", SHORT), await text_of(b, "slot", OTHER)
    assert (await a.read("slot", SHORT)).evaluated_tokens == 2, "b overwrites the slot of a with the same name"
    assert (await b.read("elsewhere", SHORT)).evaluated_tokens == 0, "b evaluates a prompt that a has evaluated"
    await a.forget("")
    assert (await b.read("slot", OTHER)).evaluated_tokens == 2, "`forget` of a affects the slots of b"
    assert [await text_of(b, "slot", SHORT), await text_of(a, "slot", OTHER)] == [first, second]


async def test_a_cancellation_does_not_affect_other_servers(enter: Enter) -> None:
    a, b = await enter().engine(), await enter().engine()
    expected = await text_of(b, "b", SHORT)
    await b.forget("")
    running = asyncio.create_task(a.read("a", LONG))
    waiting = asyncio.create_task(text_of(b, "b", SHORT))
    await asyncio.sleep(0.1)
    running.cancel()
    assert await waiting == expected
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_the_engine_ends_with_its_last_client(enter: Enter) -> None:
    first, second = enter(), enter()
    pid = (await first.engine()).pid
    assert (await second.engine()).pid == pid
    await first.close()  # this server started the engine
    assert await text_of(await second.engine(), "a", SHORT)
    assert second.pid == pid
    engine = psutil.Process(pid)
    await second.close()
    await asyncio.to_thread(engine.wait, 20)
    third = enter()
    assert (await third.engine()).pid != pid


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
async def test_all_servers_share_one_engine_after_a_crash(enter: Enter) -> None:
    servers = [enter() for _ in range(3)]
    [pid, *_] = [(await server.engine()).pid for server in servers]
    os.kill(pid, signal.SIGKILL)
    engines = await asyncio.gather(*(server.engine() for server in servers))
    while any(engine.pid == pid for engine in engines):  # a server has not noticed the crash yet
        await asyncio.sleep(0.01)
        engines = await asyncio.gather(*(server.engine() for server in servers))
    assert len({engine.pid for engine in engines}) == 1
    assert await text_of(engines[2], "a", SHORT)


async def test_an_unused_model_is_unloaded_until_the_next_request(enter: Enter, model: Path) -> None:
    engine = await enter(replace(SETTINGS, idle_minutes=1 / 600)).engine()
    process = psutil.Process(engine.pid)
    expected = await text_of(engine, "a", SHORT)

    def loaded() -> bool:
        return any(mapped.path == str(model) for mapped in process.memory_maps())

    if sys.platform == "linux":
        while loaded():  # noqa: ASYNC110  # the maps of another process give no notification
            await asyncio.sleep(0.05)
    else:
        await asyncio.sleep(1)
    await engine.forget("a")  # does not load the model
    reading = await engine.read("a", SHORT)
    assert reading.evaluated_tokens == reading.prompt_tokens, "the model was not unloaded, because the cache has cells"
    assert await text_of(engine, "a", SHORT) == expected
