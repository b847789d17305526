"""The threshold that a workspace was calibrated to: a personalised policy (the paper's outlook, section 7).

A small file in the user's data folder, written by `repoformer-lsp calibrate` and read with each request, so that a
calibration, and taking it back, hold for servers that are running. A threshold belongs to a workspace and to the model
it was measured with, known by the hash of its file; under another model it says nothing and is not used. Earlier
values are kept, so that each calibration can be undone.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from policy.models.shards import sha256, shards_of

KEPT = 10
LOCK_SECONDS = 10.0


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
    real = path.resolve()  # the workspace and the document may each be opened through a link
    holding = [folder for folder in workspaces if real.is_relative_to(folder.resolve()) and _key(folder) in known]
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
    with _locked():
        history = [*_known().get(_key(workspace), ()), calibration]
        _save(workspace, history[-KEPT:])


def undo(workspace: Path) -> tuple[Calibration | None, Calibration | None]:
    """Take the last calibration of a workspace back; returns it, and the one that holds now."""
    with _locked():
        history = _known().get(_key(workspace), ())
        if not history:
            return None, None
        *rest, taken = history
        _save(workspace, rest)
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
    found = {key: _history(value) for key, value in _entries(path).items()}
    return {key: history for key, history in found.items() if history is not None}


def _entries(path: Path) -> dict[str, object]:
    """Return what the file has for each workspace, as it is: another version may have written some of it."""
    try:
        entries = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _history(value: object) -> tuple[Calibration, ...] | None:
    """Read one workspace's calibrations; None if this version cannot read them."""
    try:
        history = tuple(Calibration(**each) for each in value)  # type: ignore[attr-defined]
    except TypeError:
        return None
    return history if all(isinstance(each.threshold, int | float) for each in history) else None


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Let no other process write meanwhile. Raises `OSError` if the file cannot be written."""
    file().parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(file().with_suffix(".lock"), timeout=LOCK_SECONDS):
            yield
    except Timeout as error:
        raise OSError(f"{file()} is being written by another process") from error


def _save(workspace: Path, history: Sequence[Calibration]) -> None:
    """Replace one workspace's calibrations; what the file has of others stays, readable or not."""
    target = file()
    entries = _entries(target)
    if not entries and target.exists() and target.stat().st_size:
        target.replace(target.with_suffix(".damaged"))  # for the user to repair
    entries[_key(workspace)] = [asdict(each) for each in history]
    if not history:
        del entries[_key(workspace)]
    temporary = target.with_suffix(f".{os.getpid()}.new")
    temporary.write_text(json.dumps(entries, indent=1) + "\n", "utf-8")
    temporary.replace(target)
    _read.cache_clear()  # two versions written within the clock's resolution may have the same size
