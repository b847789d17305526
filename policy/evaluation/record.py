"""Describe a run next to its results, so that runs can be repeated and compared.

The description, `run.json`, is written before the first result. The same command resumes the run. A command with other
arguments raises an error instead of adding its results to the existing ones.
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
    """Return the folder in the user's cache for a run with this description.

    Different descriptions have different folders.
    """
    encoded = json.dumps(description, sort_keys=True).encode()
    cache = Path(platformdirs.user_cache_dir("repoformer-lsp", appauthor=False))
    return cache / "eval" / f"{name}-{hashlib.sha256(encoded).hexdigest()[:12]}"


def begin(out: Path, description: Mapping[str, Any]) -> list[Row]:
    """Create the folder of a run, or open an existing one, and return the rows that are already in it.

    Raises `EvaluationError` if the folder holds the results of another run or cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        _claim(out, description)
        return table.begin(out / RESULTS)
    except OSError as error:
        raise EvaluationError(f"{out} cannot be written: {error.strerror}") from error


def write_problems(out: Path, problems: Sequence[Problem]) -> None:
    """Store, in the folder `out`, the items that could not be evaluated."""
    (out / PROBLEMS).write_text(json.dumps([asdict(problem) for problem in problems], indent=1) + "\n", "utf-8")


def fingerprint(tasks: Sequence[Task]) -> str:
    """Return a hash of the ids, contexts and truths of `tasks`. The name of the data file does not change the hash."""
    digest = hashlib.sha256()
    for task in tasks:
        digest.update(
            "\0".join((task.id, task.cursor.prefix, task.truth, task.cursor.suffix)).encode("utf-8", "replace")
        )
    return digest.hexdigest()[:16]


def describe_model(path: Path, info: ModelInfo) -> dict[str, Any]:
    """Return the model's file name, SHA-256, layout, budgets, and whether it decides."""
    return {
        "file": path.name,
        "sha256": calibration.fingerprint(path),
        "layout": info.layout,
        "selective": info.selective,
        "budgets": asdict(info.budgets),
    }


def device() -> dict[str, Any]:
    """Return a description of the machine, for comparing times."""
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
    """Return the keys whose values differ between two descriptions, sorted."""
    return sorted(name for name in {*left, *right} if left.get(name) != right.get(name))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def read_run(out: Path) -> dict[str, Any]:
    """Return the content of a run's `run.json`, or an empty dictionary if there is none."""
    try:
        description = json.loads((out / RUN).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return description if isinstance(description, dict) else {}


def read_problems(out: Path) -> list[Problem]:
    """Return the items of a run that could not be evaluated."""
    try:
        return [Problem(**each) for each in json.loads((out / PROBLEMS).read_text("utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def _claim(out: Path, description: Mapping[str, Any]) -> None:
    """Write `run.json`, or check that the existing one describes the same run. Raises `EvaluationError`."""
    wanted = json.loads(json.dumps({**description, "device": device()}))
    existing = read_run(out)
    if existing:
        if differs := [name for name in differences(existing, wanted) if name != "device"]:
            raise EvaluationError(
                f"{out} holds a run with another {', '.join(differs)}: specify another --out, or delete that folder"
            )
        return
    if (out / RESULTS).exists():
        raise EvaluationError(f"{out / RESULTS} has no {RUN} next to it: specify another --out, or delete that folder")
    (out / RUN).write_text(json.dumps(wanted, indent=1, ensure_ascii=False) + "\n", "utf-8")
