"""Where engines are met: who may enter, who serves."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from policy.engine import connect, protocol
from policy.engine.endpoint import Endpoint, identity, runtime_dir
from policy.engine.settings import EngineSettings
from policy.engine.worker.listener import Listener
from policy.engine.worker.scheduler import Scheduler
from policy.errors import EngineUnavailable

posix = pytest.mark.skipif(sys.platform == "win32", reason="modes of files are POSIX")


@posix
def test_nobody_else_may_enter() -> None:
    folder = runtime_dir()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    with pytest.raises(EngineUnavailable, match="not yours alone"):
        runtime_dir()
    folder.chmod(0o700)


@posix
def test_a_link_is_no_folder_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / f"repoformer-lsp-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EngineUnavailable, match="not yours alone"):
        runtime_dir()


@posix
def test_a_folder_too_deep_for_a_socket(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="set XDG_RUNTIME_DIR to a shorter folder"):
        Endpoint(tmp_path / ("x" * 100), "name").check()


def test_one_serves(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path, "engine")
    held = endpoint.claim()
    assert held is not None
    assert endpoint.claim() is None
    os.close(held)  # as the system does for a process that ends
    again = endpoint.claim()
    assert again is not None
    os.close(again)


def test_what_makes_an_engine_another(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(b"one")
    settings = EngineSettings()

    def name(settings: EngineSettings = settings, layout: str = "", **environment: str) -> str:
        return identity(model, settings, layout, environment=environment)

    before = name()
    assert name() == name(HOME="/elsewhere") == before
    others = [name(replace(settings, threads=3)), name(layout="fim-psm"), name(CUDA_VISIBLE_DEVICES="1")]
    model.write_bytes(b"other")
    others.append(name())
    assert len({before, *others}) == 5


async def test_a_port_on_the_loopback_lets_in_who_knows_the_token(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path, "engine")
    scheduler = Scheduler(lambda wanted: None)
    left = asyncio.Event()
    listener = Listener(endpoint, scheduler, left.set)
    server, listener._token = await endpoint.listen_on_loopback(listener._accept)
    (reader, writer), token = await endpoint.connect_to_loopback()
    writer.write(protocol.pack({"token": token}))
    assert (await protocol.receive(reader))["pid"] == os.getpid()
    for wrong in ({"token": "guessed"}, {"op": "load"}, {"token": "x" * 2000}, ["token"]):
        (stranger, knocking), _ = await endpoint.connect_to_loopback()
        knocking.write(protocol.pack(wrong))  # type: ignore[arg-type]
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await protocol.receive(stranger)
        knocking.close()
    if sys.platform != "win32":
        assert endpoint.socket.stat().st_mode & 0o077 == 0
    assert not left.is_set()
    writer.close()
    await left.wait()
    server.close()


async def test_a_file_that_names_no_port(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path, "engine")
    endpoint.socket.write_text("nonsense")
    with pytest.raises(OSError, match="does not say where"):
        await endpoint.connect_to_loopback()


@pytest.mark.skipif(sys.platform == "win32", reason="it listens on a port there")
async def test_a_listener_that_says_nothing_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "TIMEOUT", 0.3)
    endpoint = Endpoint(tmp_path, "engine")
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the other side hangs up
        writer.close()
        await writer.wait_closed()
        gone.set()

    listener = await asyncio.start_unix_server(silent, endpoint.socket)
    with pytest.raises(EngineUnavailable, match="no engine answered"):
        await asyncio.wait_for(connect.connect(endpoint, {}, lambda _line: None), 20)
    await gone.wait()
    listener.close()
