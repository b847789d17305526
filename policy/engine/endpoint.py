"""The endpoint of an engine: one for each combination of model, parameters and program.

An endpoint is a socket that only this user can reach. It is a Unix socket in a folder with mode 0700. On Windows, it is
a port on the loopback interface, and clients need a token that is in a file of the user's profile.

Each endpoint has a lock file, and only the process that locks this file serves at the endpoint. So two processes that
start at the same time cannot both serve. The operating system releases the lock however the process ends. Thus a socket
whose lock is free is left over from a process that was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import stat
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import platformdirs

from policy.engine import libraries
from policy.engine.protocol import MAX_FRAME_BYTES
from policy.errors import EngineUnavailable

_NAME_LENGTH = 16  # number of characters of an engine's name
_MAX_UNIX_PATH = 103  # maximum number of bytes of a socket's path on macOS; Linux allows 107
# Beginnings of the environment variables that native code reads. Servers with different values use different engines.
_ENVIRONMENT = ("CUDA_", "GGML_", "GOMP_", "HIP_", "LLAMA_", "OMP_", "PYTHONPATH", "REPOFORMER_LLAMA_", "ROCR_", "VK_")

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def runtime_dir() -> Path:
    """Return the folder for sockets and locks, which only this user may enter. Create it if it does not exist.

    Raises `EngineUnavailable` if another user owns the folder or may enter it, because that user could read the code
    that servers send to an engine.
    """
    if sys.platform == "win32":
        folder = Path(platformdirs.user_cache_dir("repoformer-lsp", appauthor=False), "run")
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    return _own_folder(next(filter(_fits, _candidates()), next(_candidates())))


def _candidates() -> Iterator[Path]:
    """Yield candidates for the folder of the sockets, the best one first.

    The first one may be unusable, because the path of a folder that the user sets (XDG_RUNTIME_DIR) may be too long for
    a socket.
    """
    name = f"repoformer-lsp-{os.getuid()}"
    bases = (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), f"/run/user/{os.getuid()}", "/tmp", "/var/tmp")
    for base in bases:
        # A relative path is not used, because it would name another folder in each process.
        if base and Path(base).is_absolute() and Path(base).is_dir() and os.access(base, os.W_OK):
            yield Path(base, name)
    yield Path(tempfile.gettempdir(), name)


def _fits(folder: Path) -> bool:
    """Return whether the path of a socket in `folder` is short enough for the operating system."""
    return len(os.fsencode(folder / f"{'0' * _NAME_LENGTH}.sock")) <= _MAX_UNIX_PATH


def _own_folder(folder: Path) -> Path:
    """Create `folder` unless it exists, and return it. Raises `EngineUnavailable` if other users may enter it."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise EngineUnavailable(
            f"Cannot make {folder} ({error.strerror}). Set XDG_RUNTIME_DIR to a folder of your own"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise EngineUnavailable(
            f"{folder} must be a folder of yours with mode 0700. Remove it, "
            "or set XDG_RUNTIME_DIR to a folder of your own"
        )
    return folder


def identity(model: Path, *parameters: object, environment: Mapping[str, str]) -> str:
    """Return a name for the engine that runs `model` with `parameters`. Servers that get the same name share an engine.

    The name depends on the model's path, size and modification time, on the parameters, and on the environment
    variables that native code reads. It also depends on the program's source, so that after an upgrade (or an edit) no
    server connects to a process that runs the old program.
    """
    try:
        status = model.stat()
        file: tuple[object, ...] = (str(model.resolve()), status.st_size, status.st_mtime_ns)
    except OSError:
        file = (str(model),)
    set_by_user = sorted(item for item in environment.items() if item[0].startswith(_ENVIRONMENT))
    parts = [sys.executable, _program(), *map(repr, file), *map(repr, parameters), repr(set_by_user)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_NAME_LENGTH]


@cache
def _program() -> str:
    """Return a hash of what the worker runs: our modules, the versions of the llama.cpp packages, and the model cards.

    The cards are included because they say how the worker prompts a model.
    """
    digest = hashlib.sha256(libraries.versions().encode())
    for package in ("indexer", "policy"):
        folder = Path(__file__).parents[2] / package
        for path in sorted([*folder.rglob("*.py"), *folder.glob("models/cards/*.json")]):
            if "training" not in path.parts and "evaluation" not in path.parts:
                digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The endpoint of the engine called `name` (see `identity`). `folder` is `runtime_dir()`."""

    folder: Path
    name: str

    def claim(self) -> int | None:
        """Lock the endpoint until this process ends.

        Return the lock's file descriptor, or None if another process has it.
        """
        descriptor = _hold(self._lock)
        if descriptor is not None:
            self._remove_leftovers()
        return descriptor

    def _remove_leftovers(self) -> None:
        """Remove the files of every other endpoint whose lock is free, because its engine was killed."""
        for lock in self.folder.glob("*.lock"):
            if lock != self._lock and (descriptor := _hold(lock)) is not None:
                Endpoint(self.folder, lock.stem).leave()
                os.close(descriptor)

    async def listen(self, serve: Serve) -> tuple[asyncio.Server, str]:
        """Accept connections. Call `claim` first. Return the server and the token that clients have to send."""
        if sys.platform == "win32":
            return await self.listen_on_loopback(serve)
        else:  # noqa: RET505  # a type checker reads one branch or the other
            self.socket.unlink(missing_ok=True)  # an existing socket is stale, because this process has the lock
            return await asyncio.start_unix_server(serve, self.socket, limit=MAX_FRAME_BYTES), ""

    async def connect(self) -> tuple[Streams, str]:
        """Connect, and return the streams and the token to send. Raises `OSError` if no process listens."""
        if sys.platform == "win32":
            return await self.connect_to_loopback()
        else:  # noqa: RET505
            return await asyncio.open_unix_connection(self.socket, limit=MAX_FRAME_BYTES), ""

    def leave(self) -> None:
        """Remove the files of this endpoint, so that no server tries to connect. The process keeps its lock."""
        for file in (self.socket, self._lock):
            with contextlib.suppress(OSError):  # on Windows, an open file cannot be removed
                file.unlink(missing_ok=True)

    @property
    def _lock(self) -> Path:
        return self.folder / f"{self.name}.lock"

    @property
    def socket(self) -> Path:
        """The path of the socket, or of the file that contains the port."""
        return self.folder / f"{self.name}.sock"

    def check(self) -> None:
        """Raise `EngineUnavailable` if the path is too long for a socket."""
        if len(os.fsencode(self.socket)) > _MAX_UNIX_PATH and sys.platform != "win32":
            raise EngineUnavailable(
                f"{self.socket} is too long for the path of a socket. Set XDG_RUNTIME_DIR to a shorter folder"
            )

    # -- Windows, where asyncio has no Unix sockets --------------------------------------------------------------------

    async def listen_on_loopback(self, serve: Serve) -> tuple[asyncio.Server, str]:
        """Listen on a port that the system chooses. Write the port and a token to a file that other users cannot read.

        Return the server and the token.
        """
        token = secrets.token_hex(32)
        server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=MAX_FRAME_BYTES)
        port = server.sockets[0].getsockname()[1]
        written = self.socket.with_suffix(".new")
        written.touch(0o600)
        written.write_text(f"{port} {token}", "ascii")
        written.replace(self.socket)
        return server, token

    async def connect_to_loopback(self) -> tuple[Streams, str]:
        """Connect to the port in the file, and return the streams and the token.

        Raises `OSError` if no process listens.
        """
        try:
            port, token = self.socket.read_text("ascii").split()
            return await asyncio.open_connection("127.0.0.1", int(port), limit=MAX_FRAME_BYTES), token
        except ValueError as error:
            raise OSError(f"{self.socket} contains no port") from error


def _hold(lock: Path) -> int | None:
    """Create a file and lock it. Return its descriptor, or None if another process holds the lock."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        if not _locked(descriptor):
            os.close(descriptor)
            return None
        # The process that held the lock before may have removed the file after this process opened it. The lock is then
        # on a removed file, so another attempt is needed.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), lock.stat()):
                return descriptor
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    if sys.platform == "win32":
        import msvcrt

        with contextlib.suppress(OSError):
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            return True
        return False
    import fcntl

    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
