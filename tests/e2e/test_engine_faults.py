"""After a crash of native code, the editor's server still runs, and the next completion works."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from lsp_server.client import Client
from tests.e2e.driving import Start, Workspace, logged, ready, shown

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

Write = Callable[[str], Workspace]
COUNTING = """
#- counting.py
ONE = 1
TWO = 2
THREE = ‸
"""

# This module simulates a llama.cpp library that uses an instruction which the CPU does not have. If the weights were
# repacked for that instruction, the process ends at the first evaluation with a real SIGILL. Python imports the module
# at the start of every process that has the module's folder in PYTHONPATH.
SITECUSTOMIZE = """
import os, signal, sys

def patched(library):
    load, decode, repacked = library.llama_model_load_from_file, library.llama_decode, []
    def llama_model_load_from_file(path, params):
        repacked[:] = [params.use_extra_bufts]
        return load(path, params)
    def llama_decode(context, batch):
        if repacked == [True]:
            os.kill(os.getpid(), signal.SIGILL)
        return decode(context, batch)
    library.llama_model_load_from_file, library.llama_decode = llama_model_load_from_file, llama_decode

if "policy.engine.worker" in sys.orig_argv:
    from policy.engine.worker import native
    patched(native.load())
"""


def worker_of(client: Client) -> psutil.Process:
    """Return the worker, the process in which llama.cpp runs."""
    assert client.process is not None
    [worker] = [
        child
        for child in psutil.Process(client.process.pid).children(recursive=True)
        if "policy.engine.worker" in " ".join(child.cmdline())
    ]
    return worker


async def test_an_engine_killed_during_a_request(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(COUNTING)
    client = await start(place.root, model=model)
    await ready(client)
    assert client.process is not None
    server = psutil.Process(client.process.pid)
    long = "".join(f"VALUE_{number} = {number} * {number}\n" for number in range(2000)) + place.text
    client.open(place.uri, long)
    at = (long.count("\n") - 1, 8)
    _, items = client.ask_completion(place.uri, at)
    await client.seen("repoformer/status", lambda status: status["state"] == "generating")
    killed = worker_of(client)
    killed.send_signal(signal.SIGKILL)
    assert await items == []
    assert "SIGKILL" in await logged(client, "SIGKILL")
    assert await client.complete(place.uri, at), "the next request has no item"
    assert worker_of(client).pid != killed.pid
    assert server.is_running() and server.pid == client.process.pid
    assert shown(client) == [], "a single crash is shown to the user"


async def test_an_engine_killed_while_idle_is_there_again(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(COUNTING)
    client = await start(place.root, model=model)
    await ready(client)
    worker_of(client).send_signal(signal.SIGKILL)
    await logged(client, "SIGKILL")
    client.open(place.uri, place.text)
    assert await client.complete(place.uri, place.cursor)


async def test_a_build_that_dies_at_its_first_evaluation_recovers(
    start: Start, workspace: Write, model: Path, tmp_path: Path
) -> None:
    place = workspace(COUNTING)
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITECUSTOMIZE)
    faulty = {"PYTHONPATH": os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))}
    client = await start(place.root, model=model, env=faulty)
    client.open(place.uri, place.text)
    assert await client.complete(place.uri, place.cursor), "the completion has no item after the crash"
    assert "SIGILL" in await logged(client, "SIGILL")
    told = shown(client)
    assert len(told) == 1 and "extra_buffers True → False" in told[0]
    await client.close()

    again = await start(place.root, model=model, env=faulty)
    again.open(place.uri, place.text)
    assert await again.complete(place.uri, place.cursor)
    lines = [sent["params"]["message"] for sent in again.received if sent["method"] == "window/logMessage"]
    assert not [line for line in lines if "SIGILL" in line], "the working settings are not stored"
    assert shown(again) == []


async def test_a_workspace_cannot_stand_in_for_our_modules(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(
        COUNTING
        + "#- policy/__init__.py\nraise SystemExit('imported from the workspace')\n"
        + "#- numpy.py\nraise SystemExit('imported from the workspace')\n"
        + "#- json.py\nraise SystemExit('imported from the workspace')\n"
    )
    client = await start(place.root, model=model, cwd=place.root)
    await ready(client)
    client.open(place.uri, place.text)
    assert await client.complete(place.uri, place.cursor)


async def test_an_editor_that_is_killed_leaves_nothing(
    home: dict[str, str], workspace: Write, model: Path, tmp_path: Path
) -> None:
    """In this test, the editor is a separate process. The test kills it, so it sends no `exit`, and its pipes close."""
    place = workspace(COUNTING)
    program = tmp_path / "editor.py"
    program.write_text(
        "import asyncio, os, sys\nfrom pathlib import Path\nfrom lsp_server.client import Client\n"
        "from tests.e2e.driving import SERVER, ready\n"
        "async def main():\n"
        "    client = await Client.spawn([SERVER, '--model', sys.argv[2]])\n"
        "    await client.initialize([Path(sys.argv[1])], process_id=os.getpid())\n"
        "    await ready(client)\n"
        "    print('ready', flush=True)\n"
        "    await asyncio.sleep(1000)\n"
        "asyncio.run(main())\n"
    )
    editor = await asyncio.create_subprocess_exec(
        *(sys.executable, program, place.root, model),
        env={**os.environ, **home, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=asyncio.subprocess.PIPE,
    )
    assert editor.stdout is not None
    assert await editor.stdout.readline() == b"ready\n"
    family = psutil.Process(editor.pid).children(recursive=True)
    assert len(family) >= 2, "the server or its worker does not run"
    editor.kill()
    await editor.wait()
    _, alive = await asyncio.to_thread(psutil.wait_procs, family, 20)
    assert alive == []


async def test_a_client_process_that_ends_ends_the_server_although_its_pipe_is_open(
    start: Start, workspace: Write, model: Path
) -> None:
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)
    client = await start(workspace(COUNTING).root, model=model, process_id=other.pid)
    await ready(client)
    assert client.process is not None
    family = [psutil.Process(client.process.pid), *psutil.Process(client.process.pid).children(recursive=True)]
    other.kill()
    await other.wait()
    await asyncio.wait_for(client.ended(), 30)
    _, alive = await asyncio.to_thread(psutil.wait_procs, family, 20)
    assert alive == []


async def test_a_server_that_is_killed_takes_its_worker_along(start: Start, workspace: Write, model: Path) -> None:
    client = await start(workspace(COUNTING).root, model=model)
    await ready(client)
    assert client.process is not None
    family = psutil.Process(client.process.pid).children(recursive=True)
    assert family
    client.process.kill()
    await client.ended()
    _, alive = await asyncio.to_thread(psutil.wait_procs, family, 20)
    assert alive == []
