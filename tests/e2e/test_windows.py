"""Three editor windows of one user share one worker process, and one copy of the model in memory."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from lsp_server.client import Client
from tests.e2e.driving import Start, Workspace, all_gone, logged, ready

Write = Callable[[str], Workspace]
COUNTING = """
#- counting.py
ONE = 1
TWO = 2
THREE = ‸
"""


def server_of(client: Client) -> psutil.Process:
    assert client.process is not None
    return psutil.Process(client.process.pid)


def engines_of(*servers: psutil.Process) -> list[psutil.Process]:
    """Return the worker processes that these servers have started."""
    children = [child for server in servers for child in server.children(recursive=True)]
    return [child for child in children if "policy.engine.worker" in child.cmdline()]


def holders(model: Path, *processes: psutil.Process) -> list[int]:
    """Return the ids of the given processes that have mapped the model file into memory."""
    return [each.pid for each in processes if any(mapped.path == str(model) for mapped in each.memory_maps())]


async def three(start: Start, place: Workspace, model: Path) -> tuple[list[Client], list[psutil.Process]]:
    """Start three servers at the same time, as an editor does when it restores its windows. Wait until all are ready.

    Return the clients and the server processes.
    """
    clients = await asyncio.gather(*(start(place.root, model=model) for _ in range(3)))
    for client in clients:
        await ready(client)
        client.open(place.uri, place.text)
    return clients, [server_of(client) for client in clients]


async def test_three_windows_are_one_engine(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(COUNTING)
    clients, servers = await three(start, place, model)
    answers = await asyncio.gather(*(client.complete(place.uri, place.cursor) for client in clients))
    assert (
        answers[0]
        and [[item["insertText"] for item in items] for items in answers]
        == [[item["insertText"] for item in answers[0]]] * 3
    )
    [engine] = engines_of(*servers)
    if sys.platform == "linux":
        family = [each for server in servers for each in (server, *server.children(recursive=True))]
        assert holders(model, *family) == [engine.pid]
    await clients[0].close()
    await clients[1].close()
    assert engine.is_running()
    assert await clients[2].complete(place.uri, place.cursor)
    await clients[2].close()
    await all_gone([engine])


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
async def test_the_window_that_started_the_engine_is_killed(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(COUNTING)
    clients, servers = await three(start, place, model)
    [engine] = engines_of(*servers)
    starter = engine.parent()
    assert starter is not None
    starter.kill()
    left = [client for client, server in zip(clients, servers, strict=True) if server.pid != starter.pid]
    for client in left:
        assert await client.complete(place.uri, place.cursor)
    assert engine.is_running() and engines_of(*(server_of(client) for client in left)) == []
    engine.kill()  # the server that started this engine has ended, so the others must notice that the engine ends
    for client in left:
        await logged(client, "has ended")
        assert await client.complete(place.uri, place.cursor)
    [another] = engines_of(*(server_of(client) for client in left))
    for client in left:
        await client.close()
    await all_gone([another])
