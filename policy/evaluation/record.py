"""What a run is: the description that belongs to its results, so that runs are repeated and compared knowingly.

`run.json` is written before the first result. The same command finds it and goes on; a command with other arguments
refuses to mix its results with these.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import platformdirs

from policy.engine import libraries
from policy.engine.messages import ModelInfo
from policy.gating import calibration

from . import table
from .table import Row
from .task import EvaluationError, Problem, Task

RESULTS, RUN, PROBLEMS, TIMES = "results.csv", "run.json", "problems.json", "times.json"


def folder(name: str, description: Mapping[str, Any]) -> Path:
    """A place for a run in the user's cache: the same one for the same description, another for any other."""
    told = json.dumps(description, sort_keys=True).encode()
    cache = Path(platformdirs.user_cache_dir("repoformer-lsp", appauthor=False))
    return cache / "eval" / f"{name}-{hashlib.sha256(told).hexdigest()[:12]}"


def begin(out: Path, description: Mapping[str, Any]) -> list[Row]:
    """Make `out` the folder of a run; returns the rows it holds already.

    Raises `EvaluationError` where it holds the results of another run.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        _claim(out, description)
        return table.begin(out / RESULTS)
    except OSError as error:
        raise EvaluationError(f"{out} cannot be written: {error.strerror}") from error


def write_problems(out: Path, problems: Sequence[Problem]) -> None:
    """Keep what could not be evaluated."""
    (out / PROBLEMS).write_text(json.dumps([asdict(problem) for problem in problems], indent=1) + "\n", "utf-8")


def fingerprint(tasks: Sequence[Task]) -> str:
    """A hash of ids, contexts and truths: the same tasks, whatever file they came from."""
    digest = hashlib.sha256()
    for task in tasks:
        digest.update(
            "\0".join((task.id, task.cursor.prefix, task.truth, task.cursor.suffix)).encode("utf-8", "replace")
        )
    return digest.hexdigest()[:16]


def describe_model(path: Path, info: ModelInfo) -> dict[str, Any]:
    """Which model this is, beyond doubt."""
    return {
        "file": path.name,
        "sha256": calibration.fingerprint(path),
        "layout": info.layout,
        "selective": info.selective,
        "budgets": asdict(info.budgets),
    }


def device() -> dict[str, Any]:
    """The machine, for whoever compares times."""
    import psutil

    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "repoformer_lsp": version("repoformer-lsp"),
        "llama_cpp": libraries.versions(),
    }


def differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[str]:
    """In which of their parts two descriptions differ."""
    return sorted(name for name in {*left, *right} if left.get(name) != right.get(name))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def read_run(out: Path) -> dict[str, Any]:
    """What `run.json` of a run says; empty where there is none."""
    try:
        told = json.loads((out / RUN).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def read_problems(out: Path) -> list[Problem]:
    """What could not be evaluated in a run."""
    try:
        return [Problem(**each) for each in json.loads((out / PROBLEMS).read_text("utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def _claim(out: Path, description: Mapping[str, Any]) -> None:
    """Write `run.json`, or make sure that the one that is there describes the same run."""
    wanted = json.loads(json.dumps({**description, "device": device()}))
    there = read_run(out)
    if there:
        if differs := [name for name in differences(there, wanted) if name != "device"]:
            raise EvaluationError(
                f"{out} holds a run with another {', '.join(differs)}: name another --out, or delete that folder"
            )
        return
    if (out / RESULTS).exists():
        raise EvaluationError(f"{out / RESULTS} has no {RUN} beside it: name another --out, or delete that folder")
    (out / RUN).write_text(json.dumps(wanted, indent=1, ensure_ascii=False) + "\n", "utf-8")
