"""Endpoints of engines: which users may connect, and which of several processes serves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from policy.engine import connect, protocol
from policy.engine.client import Engine
from policy.engine.endpoint import Endpoint, identity, runtime_dir
from policy.engine.settings import EngineSettings
from policy.engine.worker.listener import Listener
from policy.engine.worker.scheduler import Scheduler
from policy.errors import EngineDied, EngineUnavailable

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX file modes")


@posix
def test_other_users_cannot_connect() -> None:
    folder = runtime_dir()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    with pytest.raises(EngineUnavailable, match="must be a folder of yours"):
        runtime_dir()
    folder.chmod(0o700)


@posix
def test_a_link_is_not_used_as_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="r-") as short:  # a socket's path may not be as long as `tmp_path`
        monkeypatch.setenv("XDG_RUNTIME_DIR", short)
        Path(short, "elsewhere").mkdir(mode=0o700)
        Path(short, f"repoformer-lsp-{os.getuid()}").symlink_to(Path(short, "elsewhere"))
        with pytest.raises(EngineUnavailable, match="must be a folder of yours"):
            runtime_dir()


@posix
def test_a_folder_too_deep_for_a_socket(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="Set XDG_RUNTIME_DIR to a shorter folder"):
        Endpoint(tmp_path / ("x" * 100), "name").check()


def test_only_one_process_serves(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path, "engine")
    held = endpoint.claim()
    assert held is not None
    assert endpoint.claim() is None
    os.close(held)  # the operating system does this when a process ends
    again = endpoint.claim()
    assert again is not None
    os.close(again)


def test_each_parameter_changes_the_endpoint(tmp_path: Path) -> None:
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


async def test_a_loopback_port_requires_the_token(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path, "engine")
    scheduler = Scheduler(lambda wanted: None)
    left = asyncio.Event()
    listener = Listener(endpoint, scheduler, left.set)
    server, listener._token = await endpoint.listen_on_loopback(listener._accept)
    (reader, writer), token = await endpoint.connect_to_loopback()
    writer.write(protocol.pack({"token": token}))
    assert (await protocol.receive(reader))["pid"] == os.getpid()
    for wrong in ({"token": "guessed"}, {"op": "load"}, {"token": "x" * 2000}, ["token"]):
        (stranger, stranger_writer), _ = await endpoint.connect_to_loopback()
        stranger_writer.write(protocol.pack(wrong))  # type: ignore[arg-type]
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await protocol.receive(stranger)
        stranger_writer.close()
    if sys.platform != "win32":
        assert endpoint.socket.stat().st_mode & 0o077 == 0
    assert not left.is_set()
    writer.close()
    await left.wait()
    server.close()


async def test_a_port_file_without_a_port(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path, "engine")
    endpoint.socket.write_text("nonsense")
    with pytest.raises(OSError, match="contains no port"):
        await endpoint.connect_to_loopback()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a socket in a folder; on Windows, the engine uses a port")
async def test_connecting_to_a_silent_listener_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "TIMEOUT", 0.3)
    endpoint = Endpoint(tmp_path, "engine")
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # returns when the other side closes the connection
        writer.close()
        await writer.wait_closed()
        gone.set()

    listener = await asyncio.start_unix_server(silent, endpoint.socket)
    with pytest.raises(EngineUnavailable, match="no engine answered"):
        await asyncio.wait_for(connect.connect(endpoint, {}, lambda _line: None), 20)
    await gone.wait()
    listener.close()


@posix
def test_a_path_too_long_for_a_socket_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    deep.mkdir(parents=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    folder = runtime_dir()
    assert deep not in folder.parents and folder.stat().st_mode & 0o777 == 0o700
    Endpoint(folder, "0" * 16).check()


@posix
@pytest.mark.parametrize("named", ["relative", "file", "absent", ""])
def test_a_runtime_folder_that_cannot_be_used_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "relative").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", named if named in {"relative", ""} else str(tmp_path / named))
    folder = runtime_dir()
    assert folder.is_absolute() and tmp_path not in folder.parents


@posix
def test_lock_files_are_removed(tmp_path: Path) -> None:
    killed, other = Endpoint(tmp_path, "killed"), Endpoint(tmp_path, "other")
    held = killed.claim()
    assert held is not None
    killed.socket.touch()
    os.close(held)  # the operating system does this when a process is killed
    serving = Endpoint(tmp_path, "serving").claim()
    assert serving is not None
    mine = other.claim()
    assert mine is not None
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other.lock", "serving.lock"]
    other.leave()
    assert [file.name for file in tmp_path.iterdir()] == ["serving.lock"]
    again = Endpoint(tmp_path, "other").claim()
    assert again is not None, "the lock on a removed file blocks another process"
    for descriptor in (serving, mine, again):
        os.close(descriptor)


NO_TOKENS: tuple[object, ...] = (None, 5, [], "é", "\ud800", "wrong")
FRAMES = [
    b"", b"\0", b"\0\0\0\0", b"\0\0\0\1x", b"\xff\xff\xff\xff", protocol.LENGTH.pack(1 << 27) + b"x",
    protocol.LENGTH.pack(200_000) + b"[" * 200_000, protocol.LENGTH.pack(2) + b"[]",
    protocol.LENGTH.pack(2) + b"\xff\xfe",
    *(protocol.pack({"token": token}) for token in NO_TOKENS), protocol.pack({}),
]  # fmt: skip
REQUESTS: list[dict[str, object]] = [
    {}, {"op": 5, "id": 1}, {"op": "read"}, {"op": "read", "id": "x"}, {"op": "cancel", "id": []},
    {"op": "rank", "id": 1.5},
    {"op": "rank", "id": 1, "background": "yes"}, {"id": 1}, {"op": None, "id": None}, {"op": "cancel", "id": {"a": 1}},
]  # fmt: skip


async def test_malformed_frames_disturb_no_other_client(tmp_path: Path) -> None:
    endpoint, left = Endpoint(tmp_path, "engine"), asyncio.Event()
    scheduler = Scheduler(lambda wanted: None)
    listener = Listener(endpoint, scheduler, left.set)
    server, listener._token = await endpoint.listen_on_loopback(listener._accept)
    async with server:
        (reader, writer), token = await endpoint.connect_to_loopback()
        writer.write(protocol.pack({"token": token}))
        assert (await protocol.receive(reader))["event"] == "welcome"
        hello = protocol.pack({"token": token})
        hostile = [*FRAMES, *(hello + frame for frame in FRAMES[1:9]), *(hello + protocol.pack(r) for r in REQUESTS)]
        for number, frames in enumerate(hostile):
            (other, sending), _ = await endpoint.connect_to_loopback()
            sending.write(frames)
            if not frames or frames.endswith(b"\0"):  # these frames are incomplete, so end the stream
                sending.write_eof()
            with contextlib.suppress(ConnectionError):
                await asyncio.wait_for(other.read(), 60)  # returns when the listener disconnects the client
            sending.close()
            writer.write(protocol.pack({"op": "read", "id": number}))
            while (taken := scheduler.take(0)) is None or taken.message["op"] == "forget":
                if taken is not None:
                    scheduler.finish()
                await asyncio.sleep(0.01)
            assert taken.id == number
            scheduler.finish()
        assert not left.is_set()
        writer.close()


async def test_a_client_that_says_nothing_is_disconnected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policy.engine.worker.listener.FIRST_FRAME_TIMEOUT", 0.05)
    endpoint = Endpoint(tmp_path, "engine")
    listener = Listener(endpoint, Scheduler(lambda wanted: None), lambda: None)
    server, listener._token = await endpoint.listen_on_loopback(listener._accept)
    async with server:
        (reader, writer), _ = await endpoint.connect_to_loopback()
        writer.write(b"\0\0")
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()


@pytest.mark.parametrize(
    "frame",
    [
        b"\0\0\0\1x",
        b"\xff\xff\xff\xff",
        protocol.LENGTH.pack(2) + b"[]",
        protocol.LENGTH.pack(200_000) + b"[" * 200_000,
        protocol.pack({}),
        protocol.pack({"id": 1}),
        protocol.pack({"id": [], "event": "done"}),
        protocol.pack({"id": None, "event": None}),
    ],
)
async def test_a_malformed_frame_ends_every_call(frame: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await protocol.receive(reader)
        writer.write(frame)
        await reader.read()  # returns when the client disconnects
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        streams = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        engine = Engine(streams, 1, None)
        for _ in range(2):  # the first call waits when the invalid frame arrives; the second call comes later
            with pytest.raises(EngineDied, match="sent an invalid message"):
                await asyncio.wait_for(engine.forget("x"), 60)
        assert "sent an invalid message" in await engine.ended
        await engine.close()
