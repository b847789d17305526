"""The threshold that a workspace was calibrated to: a personalised policy (the paper's outlook, section 7).

A small file in the user's data folder, written by `repoformer-lsp calibrate` and read with each request, so that a
calibration, and taking it back, hold for servers that are running. A threshold belongs to a workspace and to the model
it was measured with, known by the hash of its file; under another model it says nothing and is not used. Earlier
values are kept, so that each calibration can be undone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import platformdirs

from policy.models.shards import sha256, shards_of

KEPT = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """`threshold` was the best for `model` (a file's name and its SHA-256) on `blanks` blanks, on the day `made`."""

    threshold: float
    model: str
    sha256: str
    blanks: int
    made: str


def workspace_of(path: Path, workspaces: Iterable[Path]) -> Path | None:
    """The innermost of `workspaces` that holds `path` and was calibrated; None where there is none."""
    known = _known()
    holding = [folder for folder in workspaces if path.is_relative_to(folder) and _key(folder) in known]
    return max(holding, key=lambda folder: len(folder.parts), default=None)


def threshold_for(workspace: Path, sha256: str) -> float | None:
    """The threshold that holds for a workspace and a model, None where there is none (or it cannot be read)."""
    history = _known().get(_key(workspace), ())
    return history[-1].threshold if history and history[-1].sha256 == sha256 else None


def fingerprint(model: Path) -> str:
    """The SHA-256 of a model's file, or of its parts in their order; about a tenth of a second for a small one."""
    return sha256(shards_of(model))


def store(workspace: Path, calibration: Calibration) -> None:
    """Use a calibration from now on. Raises `OSError` where it cannot be written."""
    history = [*_known().get(_key(workspace), ()), calibration]
    _save({**_known(), _key(workspace): history[-KEPT:]})


def undo(workspace: Path) -> tuple[Calibration | None, Calibration | None]:
    """Take the last calibration of a workspace back; returns it, and the one that holds now."""
    history = _known().get(_key(workspace), ())
    if not history:
        return None, None
    *rest, taken = history
    _save({**_known(), _key(workspace): rest})
    return taken, rest[-1] if rest else None


def file() -> Path:
    """Where thresholds are stored."""
    return Path(platformdirs.user_data_dir("repoformer-lsp", appauthor=False), "thresholds.json")


def _key(workspace: Path) -> str:
    return str(workspace.resolve())


def _known() -> Mapping[str, Sequence[Calibration]]:
    try:
        told = file().stat()
    except OSError:
        return {}
    return _read(file(), told.st_mtime_ns, told.st_size)


@lru_cache(maxsize=1)
def _read(path: Path, _changed: int, _size: int) -> Mapping[str, Sequence[Calibration]]:
    try:
        told = json.loads(path.read_text("utf-8"))
        return {key: tuple(Calibration(**each) for each in history) for key, history in told.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _save(every: Mapping[str, Sequence[Calibration]]) -> None:
    target = file()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(f".{os.getpid()}.new")
    told = {key: [asdict(each) for each in history] for key, history in every.items() if history}
    temporary.write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    temporary.replace(target)
