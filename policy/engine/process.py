"""A worker process as seen by the server that started it: its output, and how it ended.

The process also serves other servers and can outlive the server that started it, so this module never ends the process.
The server that started the process watches it, because only a parent can find out how a process ended.
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
# The exit codes with which Windows ends a process whose code crashes (ntstatus.h). Other codes in that file mean too
# little memory, a missing DLL, or the end of the user's session.
_WINDOWS_CRASHES = frozenset((
    0x80000002, 0x80000003, 0xC0000005, 0xC0000006, 0xC000001D, 0xC0000025, *range(0xC000008C, 0xC0000097), 0xC00000FD,
    0xC0000194, 0xC0000374, 0xC0000409, 0xC0000420, 0xC06D007E, 0xC06D007F, 0xE06D7363,
))  # fmt: skip
# By default, the threads of GNU OpenMP spin for milliseconds at every barrier, and an evaluation has hundreds of
# barriers. On two cores that other programs also used (a build, a test run), a token took 120-1,800 ms. With this
# setting, threads spin shortly and then sleep, and a token took 55 ms. On an idle machine, the setting makes a token
# slower by about a tenth (19 ms instead of 17).
PATIENT_THREADS = {"GOMP_SPINCOUNT": "2000"}
# For K-quants that are not repacked, ggml has another kernel for batches of eight or more rows (32 in some versions),
# which rounds differently. Without this kernel, a model has smaller blocks (`policy.engine.worker.batching`).
SAME_KERNELS = {"GGML_CPU_TILED_MM": "0"}


class Process:
    """A process started with `launch`. `ended` resolves to the exit code."""

    def __init__(self, process: subprocess.Popen[bytes], log: Callable[[str], None]) -> None:
        self.pid = process.pid
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._log = log
        self._last: deque[str] = deque(maxlen=STDERR_LINES)
        # A thread watches the process, because asyncio would kill it when this server's event loop closes.
        threading.Thread(
            target=self._watch, args=(process, asyncio.get_running_loop()), name="engine", daemon=True
        ).start()

    def reason(self) -> str:
        """Return how the process ended, as text. Call this only after `ended` has resolved."""
        return describe_exit(self.ended.result(), tuple(self._last))

    @property
    def crashed(self) -> bool:
        """Whether the process ended because its own code crashed."""
        return self.ended.done() and is_crash(self.ended.result())

    def _watch(self, process: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                with contextlib.suppress(RuntimeError):  # raised if the event loop is closed
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
            # A new session, because Ctrl-C in a terminal, or an editor that ends its children, must not end the worker.
            start_new_session=sys.platform != "win32",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # exists only on Windows
        )
    except OSError as error:
        raise EngineUnavailable(f"cannot start the engine process: {error}") from error
    return Process(process, log)


def environment_with(changes: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables for a worker: our defaults, those of this process, and `changes`.

    A later one of these three overrides an earlier one. The defaults are `PATIENT_THREADS` and `SAME_KERNELS`.
    """
    return {**PATIENT_THREADS, **SAME_KERNELS, **os.environ, **changes}


def is_crash(code: int) -> bool:
    """Return whether an exit code means a crash. A kill by another program or by the system is no crash."""
    if code < 0:
        return -code in _CRASHES
    return code in _WINDOWS_CRASHES


def describe_exit(code: int, stderr: Sequence[str] = ()) -> str:
    """Return why a worker ended, as text: the signal's name or the exit code, and the last line of `stderr`."""
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
