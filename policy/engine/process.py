"""A worker process, as the server sees it that started it: what it prints, how it ended.

The process belongs to nobody: it serves other servers too, and outlives the one that started it. So nothing here ends
it. Only its parent can learn how a process ended, though, which is why the one that started it watches.
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
_FIRST_WINDOWS_EXCEPTION, _CONTROL_C = 0xC0000000, 0xC000013A
# GNU OpenMP's threads spin at every barrier, for milliseconds, and an evaluation has hundreds of them. On two cores
# that other programs use as well (a build, a test run) that made a token take 120-1,800 ms; with a short spin and
# then a sleep it took 55 ms. On an idle machine the short spin costs about a tenth (19 ms for 17).
PATIENT_THREADS = {"GOMP_SPINCOUNT": "2000"}


class Process:
    """Started with `launch`. `ended` comes true with the exit code."""

    def __init__(self, process: subprocess.Popen[bytes], log: Callable[[str], None]) -> None:
        self.pid = process.pid
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._log = log
        self._last: deque[str] = deque(maxlen=STDERR_LINES)
        # A thread, not asyncio's own child watching: that would kill the process when this server's loop closes.
        threading.Thread(
            target=self._watch, args=(process, asyncio.get_running_loop()), name="engine", daemon=True
        ).start()

    def reason(self) -> str:
        """How it ended, in words."""
        return describe_exit(self.ended.result(), tuple(self._last))

    @property
    def crashed(self) -> bool:
        """Whether it has ended because its own code crashed."""
        return self.ended.done() and is_crash(self.ended.result())

    def _watch(self, process: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody reads this any more
                    loop.call_soon_threadsafe(self._printed, line.decode("utf-8", "replace").rstrip())
        code = process.wait()
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self.ended.set_result, code)

    def _printed(self, line: str) -> None:
        self._last.append(line)
        self._log(f"engine: {line}")


def launch(endpoint: Endpoint, environment: Mapping[str, str], log: Callable[[str], None]) -> Process:
    """Start a worker that serves at `endpoint`. Raises `EngineUnavailable` when it cannot be started at all."""
    try:
        process = subprocess.Popen(
            (sys.executable, "-m", "policy.engine.worker", str(endpoint.folder), endpoint.name),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**environment, "PYTHONUNBUFFERED": "1"},
            cwd=sys.prefix,  # Python imports from the current folder first: not from somebody's workspace
            # A terminal's Ctrl-C, and an editor that ends its children, mean this server and not the others.
            start_new_session=sys.platform != "win32",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # Windows alone has it
        )
    except OSError as error:
        raise EngineUnavailable(f"the engine process could not be started: {error}") from error
    return Process(process, log)


def environment_with(changes: Mapping[str, str]) -> dict[str, str]:
    """What a worker finds in its environment."""
    return {**PATIENT_THREADS, **os.environ, **changes}


def is_crash(code: int) -> bool:
    """Whether an exit code is that of code that crashed. A kill is none: another program, or the system, wanted it."""
    if code < 0:
        return -code in _CRASHES
    return code >= _FIRST_WINDOWS_EXCEPTION and code != _CONTROL_C


def describe_exit(code: int, stderr: Sequence[str] = ()) -> str:
    """Why a process ended, in words: the signal's name, or the code, and the last thing it printed."""
    last = stderr[-1] if stderr else ""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        reason = f"the engine was ended by {name}"
        if name == "SIGKILL":
            reason += " (killed by somebody, or out of memory)"
        if name == "SIGILL":
            reason += " (this build of llama.cpp uses an instruction that this machine does not allow)"
    else:
        reason = f"the engine ended with exit code {code:#x}" if code > 255 else f"the engine ended with code {code}"
    return f"{reason}: {last}" if last else reason
