"""`repoformer-lsp doctor`: check that this machine has everything that the server needs, and advise what to do."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil

from lsp_server import log as logs
from lsp_server.choosing import AUTO, measure
from lsp_server.core import cache_dir, supervisor_of
from lsp_server.report import to_json
from lsp_server.settings import Settings
from policy.engine.libraries import COMPILE, ENVIRONMENT, ignores_avx512
from policy.engine.memory import available_memory, size_of
from policy.engine.process import describe_exit
from policy.engine.settings import EngineSettings, default_threads
from policy.engine.speed import LIMIT_SECONDS, Speed, Speeds
from policy.errors import ModelError, RepoformerError
from policy.models import choice, locate
from policy.models.gguf import Header, check_generator
from policy.prompting.prompt import Budgets

if TYPE_CHECKING:
    from lsp_server.cli import Subparsers

CheckResult = Literal["ok", "note", "problem"]
_MARKS = {"ok": "✓", "note": "·", "problem": "✗"}
_FEW_WATCHES = 100_000  # if inotify allows fewer watched folders, the command gives advice
_REPAIR = (
    "Install the server again. If that does not help, set `llamaLibrary` to a llama.cpp library that you have built."
)
_LITTLE_SPACE = 1_000_000_000  # bytes; less free disk space is a problem


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `advice` says what to do, or is empty if there is nothing to do.

    `found` is the result as text, and `details` is the result as JSON values, for programs.
    """

    check: str
    state: CheckResult
    found: str
    advice: str = ""
    details: dict[str, object] = field(default_factory=dict)


def register(subparsers: Subparsers) -> None:
    """Add the command's arguments."""
    parser = subparsers.add_parser(
        "doctor",
        help="check this machine and advise what to do",
        description="Check the build of llama.cpp, the GPU, the model, the cache, permissions and watch limits, and "
        "advise what to do. The exit status is 1 if a problem prevents completions.",
    )
    parser.add_argument("--model", default="", metavar="FILE", help="check this GGUF file instead of the default one")
    parser.add_argument("--stdio", action="store_true", help=argparse.SUPPRESS)  # see `lsp_server.cli._with_default`
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the results of all checks."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        _build,
        lambda: _model(options.model),
        _folders,
        _watching,
    ]
    findings = []
    for check in checks:
        for finding in check():
            findings.append(finding)
            if not options.json:
                print(f"{_MARKS[finding.state]} {finding.check}: {finding.found}")
                if finding.advice:
                    print(f"    {finding.advice}")
    if options.json:
        print(to_json([asdict(finding) for finding in findings]))
    return 1 if any(finding.state == "problem" for finding in findings) else 0


def _python() -> Iterator[Finding]:
    yield Finding("version", "ok", f"repoformer-lsp {version('repoformer-lsp')}, Python {sys.version.split()[0]}")
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    found = (
        f"{cores} cores ({default_threads()} used), {available_memory() / 1e9:.1f} of "
        f"{psutil.virtual_memory().total / 1e9:.1f} GB free"
    )
    yield Finding("machine", "ok", found)


def _build() -> Iterator[Finding]:
    """Check llama.cpp in a separate process, because native code may crash."""
    code = (
        "import json\n"
        "from policy.engine.worker.llama import build_info\n"
        "from policy.errors import EngineFailed\n"
        "try:\n    print(json.dumps(build_info()))\n"
        "except EngineFailed as error:\n    print(json.dumps({'error': str(error)}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=sys.prefix,  # Python imports from the current folder first, which must not be a workspace
    )
    try:
        info = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        info = {"error": describe_exit(done.returncode, done.stderr.strip().splitlines()[-1:])}
    if problem := info.get("error"):
        advice = f"Correct {ENVIRONMENT}, or remove it." if os.environ.get(ENVIRONMENT) else _REPAIR
        yield Finding("llama.cpp", "problem", f"cannot be used: {problem}", advice)
        return
    found = f"{info['version']}, API of {info['build']}, from {info['origin']}: {info['path']}; {info['system']}"
    # Report skipped libraries, because the user has usually compiled them.
    skipped = f"Not used: {'; '.join(info['skipped'])}" if info["skipped"] else ""
    yield Finding("llama.cpp", "note" if skipped else "ok", found, skipped, info)
    if info["gpu_offload"]:
        yield Finding("GPU", "ok", "this build of llama.cpp can use a GPU")
    elif shutil.which("nvidia-smi"):
        yield Finding(
            "GPU",
            "note",
            "this machine has a GPU, but this build of llama.cpp cannot use it",
            f"To compile a build that can use it, run in a clone: CMAKE_ARGS=-DGGML_CUDA=on {COMPILE}",
        )
    else:
        found = "this build of llama.cpp uses only the CPU"
        yield Finding("GPU", "note", found, "Small models are fast enough on a CPU.")
    if not info["gpu_offload"] and not os.environ.get(ENVIRONMENT) and ignores_avx512(info["system"]):
        yield Finding(
            "CPU",
            "note",
            "this processor has AVX-512, but this build of llama.cpp does not use it",
            f"A build for this processor can read prompts 1.5 times as fast. To compile one, run in a clone: {COMPILE}",
        )


def _model(setting: str) -> Iterator[Finding]:
    best = choice.expected_choice(Speeds()) if setting in AUTO else None
    try:
        model = best.model if best else locate.resolve(setting)
        header = check_generator(model.path)
    except ModelError as error:
        yield Finding("model", "problem", str(error), "To see the installed models, run `repoformer-lsp model list`.")
        return
    size = size_of(model.path)
    yield Finding("model", "ok", f"{model.path} ({header.architecture}, {size / 1e6:,.0f} MB, {model.source})")
    yield from asyncio.run(_load(model, header))


async def _load(model: locate.ModelFile, header: Header) -> list[Finding]:
    """Load and measure the model in the engine.

    The engine has the default settings, so the check finds the problems of a server with these settings.
    """
    notices: list[str] = []
    supervisor = await supervisor_of(model, Settings(), notice=notices.append)
    started = time.perf_counter()
    try:
        await supervisor.engine()
        seconds = time.perf_counter() - started
        speed = await measure(supervisor, Speeds(), EngineSettings())
    except RepoformerError as error:
        return [Finding("engine", "problem", str(error), "The results above may show the cause.")]
    finally:
        await supervisor.close()
    info = supervisor.info
    layout = (
        f", prompt layout {info.layout}, the model {'can' if info.selective else 'cannot'} request retrieval"
        if info
        else ""
    )
    findings = [Finding("engine", "ok", f"loaded and ran in {seconds:.1f} s{layout}", " ".join(notices))]
    if speed is None:
        return [*findings, Finding("speed", "note", "not measured, because the engine is busy", "Try again later.")]
    findings += _prompts(locate.budgets_of(model.path, header), speed)
    found = choice.describe(model.path, speed)
    if speed.line_seconds <= LIMIT_SECONDS:
        return [*findings, Finding("speed", "ok", found)]
    advice = f"More than {LIMIT_SECONDS} s is slow for typing."
    if not speed.undisturbed:
        advice = f"Other processes took {speed.others:.0%} of the processors. Try again when the machine is idle."
    return [*findings, Finding("speed", "note", found, advice)]


def _prompts(budgets: Budgets, speed: Speed) -> Iterator[Finding]:
    parts = speed.parts(budgets) if speed.undisturbed else 1
    if parts > 1:
        short = budgets.divided(parts)
        yield Finding(
            "prompts",
            "note",
            f"at first, a prompt has up to {short.left} tokens before the cursor and {short.right} after it, because "
            f"this machine reads {1e3 / speed.read_ms:.0f} tokens per second",
            f"When you pause, the model reads up to {budgets.left} tokens before the cursor and {budgets.right} after "
            "it. Then suggestions are better.",
        )


def _folders() -> Iterator[Finding]:
    for check, folder in (("cache", cache_dir()), ("log", logs.directory())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            advice = f"Make it writable: chown -R {os.environ.get('USER', 'you')} {folder}"
            yield Finding(check, "problem", f"{folder} cannot be written: {error.strerror}", advice)
            continue
        free = shutil.disk_usage(folder).free
        used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        found = f"{folder} ({used / 1e6:,.0f} MB used, {free / 1e9:,.1f} GB free)"
        if free < _LITTLE_SPACE:
            yield Finding(check, "problem", found, "Free some disk space. Everything in the cache can be deleted.")
        else:
            yield Finding(check, "ok", found)


def _watching() -> Iterator[Finding]:
    limit = Path("/proc/sys/fs/inotify/max_user_watches")
    try:
        watches = int(limit.read_text())
    except (OSError, ValueError):
        yield Finding("file watching", "ok", "this system has no known limit")
        return
    if watches < _FEW_WATCHES:
        advice = "For workspaces with more folders, run: sudo sysctl fs.inotify.max_user_watches=524288"
        yield Finding("file watching", "note", f"the system allows {watches:,} watched folders", advice)
    else:
        yield Finding("file watching", "ok", f"the system allows {watches:,} watched folders")
