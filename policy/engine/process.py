"""A worker process as seen by the server that started it: its output, and how it ended.

The process also serves other servers and can outlive the one that started it, so nothing here ends it. Only its parent
can find out how a process ended, which is why the server that started it watches it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from policy.engine.endpoint import Endpoint
from policy.errors import EngineUnavailable

STDERR_LINES = 20
_CRASHES = {
    getattr(signal, name)
    for name in ("SIGILL", "SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGTRAP", "SIGSYS")
    if hasattr(signal, name)
}
# The exit codes that Windows gives to crashing code (ntstatus.h). Other codes in that file mean too little
# memory, a missing DLL, or the end of the user's session.
_WINDOWS_CRASHES = frozenset((
    0x80000002, 0x80000003, 0xC0000005, 0xC0000006, 0xC000001D, 0xC0000025, *range(0xC000008C, 0xC0000097), 0xC00000FD,
    0xC0000194, 0xC0000374, 0xC0000409, 0xC0000420, 0xC06D007E, 0xC06D007F, 0xE06D7363,
))  # fmt: skip
# The threads of GNU OpenMP spin for milliseconds at every barrier, and an evaluation has hundreds of barriers. On two
# cores that other programs also used (a build, a test run), a token took 120-1,800 ms. With a short spin followed by a
# sleep it took 55 ms. On an idle machine, the short spin makes a token slower by about a tenth (19 ms instead of 17).
PATIENT_THREADS = {"GOMP_SPINCOUNT": "2000"}


class Process:
    """A process started with `launch`. `ended` resolves to the exit code."""

    def __init__(self, process: subprocess.Popen[bytes], log: Callable[[str], None]) -> None:
        self.pid = process.pid
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._log = log
        self._last: deque[str] = deque(maxlen=STDERR_LINES)
        # asyncio's child watcher would kill the process when this server's event loop closes. A thread does not.
        threading.Thread(
            target=self._watch, args=(process, asyncio.get_running_loop()), name="engine", daemon=True
        ).start()

    def reason(self) -> str:
        """Return how the process ended, as text. It must have ended."""
        return describe_exit(self.ended.result(), tuple(self._last))

    @property
    def crashed(self) -> bool:
        """Whether the process ended because its own code crashed."""
        return self.ended.done() and is_crash(self.ended.result())

    def _watch(self, process: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                with contextlib.suppress(RuntimeError):  # the event loop is closed, so no task needs the line
                    loop.call_soon_threadsafe(self._printed, line.decode("utf-8", "replace").rstrip())
        code = process.wait()
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self.ended.set_result, code)

    def _printed(self, line: str) -> None:
        self._last.append(line)
        self._log(f"engine: {line}")


def launch(endpoint: Endpoint, environment: Mapping[str, str], log: Callable[[str], None]) -> Process:
    """Start a worker that serves at `endpoint`. Raises `EngineUnavailable` if that fails."""
    try:
        process = subprocess.Popen(
            (sys.executable, "-m", "policy.engine.worker", str(endpoint.folder), endpoint.name),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**environment, "PYTHONUNBUFFERED": "1"},
            cwd=sys.prefix,  # Python imports from the current folder first, which must not be a workspace
            # Ctrl-C in a terminal, or an editor that ends its children, must end only this server.
            start_new_session=sys.platform != "win32",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # exists only on Windows
        )
    except OSError as error:
        raise EngineUnavailable(f"cannot start the engine process: {error}") from error
    return Process(process, log)


def environment_with(changes: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables for a worker: those of this process, with `changes`."""
    return {**PATIENT_THREADS, **os.environ, **changes}


def is_crash(code: int) -> bool:
    """Return whether an exit code means a crash. A kill does not count: another program or the system caused it."""
    if code < 0:
        return -code in _CRASHES
    return code in _WINDOWS_CRASHES


def describe_exit(code: int, stderr: Sequence[str] = ()) -> str:
    """Return why a process ended, as text: the signal's name or the code, and the last line of its output."""
    last = stderr[-1] if stderr else ""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        reason = f"the engine was ended by {name}"
        if name == "SIGKILL":
            reason += " (killed by a user or because of too little memory)"
        if name == "SIGILL":
            reason += " (this build of llama.cpp uses an instruction that this machine does not support)"
    else:
        reason = f"the engine ended with exit code {code:#x}" if code > 255 else f"the engine ended with code {code}"
    return f"{reason}: {last}" if last else reason
