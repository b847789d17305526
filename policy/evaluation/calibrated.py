"""The threshold that a workspace was calibrated to: a personalised policy (the paper's outlook, section 7).

A small file in the user's data folder, read by the server when it opens a workspace. A threshold belongs to a
workspace and to the model it was measured with; under another model it says nothing and is not used. Earlier values
are kept, so that each calibration can be undone.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs

KEPT = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """`threshold` was the best for `model` (a file's name) on `blanks` blanks; `made` is the date, ISO 8601."""

    threshold: float
    model: str
    blanks: int
    made: str


def threshold_for(workspace: Path, model: str) -> float | None:
    """The threshold stored for a workspace and a model, None where there is none (or the file cannot be read)."""
    history = _load().get(_key(workspace), [])
    return history[-1].threshold if history and history[-1].model == model else None


def store(workspace: Path, calibration: Calibration) -> None:
    """Use a calibration from now on. Raises `OSError` where it cannot be written."""
    every = _load()
    every[_key(workspace)] = [*every.get(_key(workspace), []), calibration][-KEPT:]
    _save(every)


def undo(workspace: Path) -> tuple[Calibration | None, Calibration | None]:
    """Take the last calibration of a workspace back; returns it, and the one that holds now."""
    every = _load()
    history = every.get(_key(workspace), [])
    if not history:
        return None, None
    *rest, taken = history
    every[_key(workspace)] = rest
    _save({key: kept for key, kept in every.items() if kept})
    return taken, rest[-1] if rest else None


def file() -> Path:
    """Where thresholds are stored."""
    return Path(platformdirs.user_data_dir("repoformer-lsp", appauthor=False), "thresholds.json")


def _key(workspace: Path) -> str:
    return str(workspace.resolve())


def _load() -> dict[str, list[Calibration]]:
    try:
        told = json.loads(file().read_text("utf-8"))
        return {key: [Calibration(**each) for each in history] for key, history in told.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _save(every: dict[str, list[Calibration]]) -> None:
    target = file()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(f".{os.getpid()}.new")
    told = {key: [asdict(each) for each in history] for key, history in every.items()}
    temporary.write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    temporary.replace(target)
