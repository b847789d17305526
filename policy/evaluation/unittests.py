"""Run the repository's own tests on a file that contains a completion (the paper's metric UT, section 5.1).

A completion is code that no person has reviewed. The tests run in a copy of the repository, without access to the
network and to other processes, and with limits on time, memory and file size. When the tests end or reach the time
limit, the kernel ends all of their processes. If the machine cannot provide this isolation (it needs Linux namespaces),
the tests do not run unless the user allows it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil

from .table import NOT_RUN, PASS

_NAMESPACES = ("unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
_POLL_SECONDS = 0.05
_LEFT_OUT = shutil.ignore_patterns(".git", "node_modules", ".venv", "__pycache__", "*.pyc", ".mypy_cache")


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one test run.

    `seconds` is wall time, `megabytes` (MiB) is the address space of each process, and `processes` is the number of
    processes at the same time. If `isolated` is true, the tests run only if the machine can isolate them.
    """

    seconds: float = 60.0
    megabytes: int = 4096
    processes: int = 256
    isolated: bool = True


@lru_cache(maxsize=1)
def can_isolate(limits: Limits) -> bool:
    """Return whether this machine can isolate a process under `limits` from the network and from other processes."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return False
    done = subprocess.run(_limited([*_NAMESPACES, "true"], limits), capture_output=True, check=False)
    return done.returncode == 0


def run(root: Path, path: str, text: str, command: Sequence[str], limits: Limits | None = None) -> str:
    """Run `command` in a copy of `root` in which the file `path` contains `text`, and return the outcome.

    The outcome is "pass" or the reason why the tests fail. The outcome "not run: …" means that the tests could not
    start, which says nothing about `text`. If the command starts with `python`, this interpreter runs it.
    """
    limits = limits or Limits()
    if limits.isolated and not can_isolate(limits):
        return f"{NOT_RUN}: this machine cannot isolate a test (no Linux namespaces)"
    with tempfile.TemporaryDirectory(prefix="repoformer-tests-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder, "repository")
        try:
            shutil.copytree(root, copy, symlinks=True, ignore=_LEFT_OUT)
            target = copy / path
            if not target.resolve().is_relative_to(copy.resolve()):
                return f"{NOT_RUN}: {path} leads out of the repository"
            target.write_text(text, "utf-8")
        except (OSError, shutil.Error) as error:
            return f"{NOT_RUN}: {error}"
        return _run(copy, command, limits)


def _run(folder: Path, command: Sequence[str], limits: Limits) -> str:
    words = [sys.executable if command[0] == "python" else command[0], *command[1:]]
    if limits.isolated:
        words = [*_NAMESPACES, *words]
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(folder.parent),
        "TMPDIR": str(folder.parent),
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
    }
    with (folder.parent / "output").open("wb") as output:
        try:
            process = subprocess.Popen(
                _limited(words, limits),
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return f"{NOT_RUN}: {error}"
        try:
            if reason := _wait(process, limits):
                return reason
            code = process.returncode
        finally:
            # In a process namespace, all processes end together with the first one, which is killed here. Without
            # namespaces, this kills its process group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code == 0:
        return PASS
    last = _last_line(folder.parent / "output")
    if limits.isolated and last.startswith(f"{_NAMESPACES[0]}: "):  # an error message of `unshare` and not of the tests
        return f"{NOT_RUN}: {last}"
    return f"exit status {code}" + (f": {last}" if last else "")


def _wait(process: subprocess.Popen[bytes], limits: Limits) -> str:
    """Wait until the process ends. Return "", or a text that names the limit that the process exceeded.

    This function counts the processes, because the kernel's limit (RLIMIT_NPROC) counts all threads of the user, and
    does not apply to root.
    """
    end = time.monotonic() + limits.seconds
    while process.poll() is None:
        if time.monotonic() > end:
            return f"not finished after {limits.seconds:g} s"
        with contextlib.suppress(psutil.Error):
            if len(psutil.Process(process.pid).children(recursive=True)) > limits.processes:
                return f"more than {limits.processes} processes"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_SECONDS)
    return ""


def _limited(words: Sequence[str], limits: Limits) -> list[str]:
    """Return a command that runs `words` under those limits that the kernel can enforce."""
    return [sys.executable, "-c", _LIMITED, str(limits.megabytes), str(limits.seconds), *words]


# A separate process sets the limits before the tests start, because a `preexec_fn` is not safe with threads.
_LIMITED = """
import os, sys
megabytes, seconds, *words = sys.argv[1:]
try:
    import resource
except ImportError:
    pass
else:
    size = int(megabytes) << 20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CPU, (int(float(seconds)) + 1,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 28, 1 << 28))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
os.execvp(words[0], words)
"""


def _last_line(file: Path) -> str:
    with file.open("rb") as output:
        output.seek(max(0, file.stat().st_size - 4096))
        lines = output.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:200] if lines else ""
