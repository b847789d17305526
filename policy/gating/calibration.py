"""Store the calibrated threshold of each workspace (the paper proposes personalized policies in section 7).

`repoformer-lsp calibrate` writes the thresholds to a small file in the user's data folder. Servers check this file at
each request, so a new calibration or an undo takes effect in running servers. A threshold is used only with the model
that was calibrated, which is identified by a hash of its file. Earlier thresholds are kept, so that a calibration can
be undone.
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

MAX_HISTORY = 10  # the maximum number of calibrations kept for each workspace
LOCK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """The result of one calibration.

    `threshold` is the best threshold for the model with the file name `model` and the hash `sha256`. `blanks` is the
    number of pieces of the workspace's code that were removed, so that the model had to complete them. `made` is the
    date (ISO 8601).
    """

    threshold: float
    model: str
    sha256: str
    blanks: int
    made: str


def workspace_of(path: Path, workspaces: Iterable[Path]) -> Path | None:
    """Return the innermost folder of `workspaces` that is calibrated and contains `path`, or None."""
    known = _known()
    real = path.resolve()  # the editor may have opened the workspace or the document through a symbolic link
    found = [folder for folder in workspaces if real.is_relative_to(folder.resolve()) and _key(folder) in known]
    return max(found, key=lambda folder: len(folder.parts), default=None)


def threshold_for(workspace: Path, sha256: str) -> float | None:
    """Return the threshold of `workspace` for the model with the hash `sha256`.

    Return None if the workspace is not calibrated for this model, or if the file cannot be read.
    """
    history = _known().get(_key(workspace), ())
    return history[-1].threshold if history and history[-1].sha256 == sha256 else None


def fingerprint(model: Path) -> str:
    """Return the SHA-256 of a model's file, or of all its shards in order.

    This takes about 0.1 seconds for a small model.
    """
    return sha256(shards_of(model))


def store(workspace: Path, calibration: Calibration) -> None:
    """Store a calibration, which takes effect immediately. Raises `OSError` if the file cannot be written."""
    with _locked():
        history = [*_known().get(_key(workspace), ()), calibration]
        _save(workspace, history[-MAX_HISTORY:])


def undo(workspace: Path) -> tuple[Calibration | None, Calibration | None]:
    """Remove the last calibration of `workspace`.

    Return the removed calibration, and the one before it, which applies from now on. Each of them is None if it does
    not exist. Raises `OSError` if the file cannot be written.
    """
    with _locked():
        history = _known().get(_key(workspace), ())
        if not history:
            return None, None
        *rest, last = history
        _save(workspace, rest)
    return last, rest[-1] if rest else None


def file() -> Path:
    """Return the path of the file with the thresholds."""
    return Path(platformdirs.user_data_dir("repoformer-lsp", appauthor=False), "thresholds.json")


def _key(workspace: Path) -> str:
    return str(workspace.resolve())


def _known() -> Mapping[str, Sequence[Calibration]]:
    try:
        status = file().stat()
    except OSError:
        return {}
    return _read(file(), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)
def _read(path: Path, _changed: int, _size: int) -> Mapping[str, Sequence[Calibration]]:
    found = {key: _history(value) for key, value in _entries(path).items()}
    return {key: history for key, history in found.items() if history is not None}


def _entries(path: Path) -> dict[str, object]:
    """Return the file's entries by workspace, without a check of their values.

    `_save` writes all entries back, including those that another version wrote and this version cannot parse.
    """
    try:
        entries = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _history(value: object) -> tuple[Calibration, ...] | None:
    """Return the calibrations of one workspace from their JSON value, or None if this version cannot parse them."""
    try:
        history = tuple(Calibration(**each) for each in value)  # type: ignore[attr-defined]
    except TypeError:
        return None
    return history if all(isinstance(each.threshold, int | float) for each in history) else None


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Prevent other processes from writing the file inside the `with` block.

    Raises `OSError` if the file cannot be written.
    """
    file().parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(file().with_suffix(".lock"), timeout=LOCK_SECONDS):
            yield
    except Timeout as error:
        raise OSError(f"Another process is writing {file()}") from error


def _save(workspace: Path, history: Sequence[Calibration]) -> None:
    """Replace the calibrations of one workspace. Other entries of the file do not change, even if they are invalid."""
    target = file()
    entries = _entries(target)
    if not entries and target.exists() and target.stat().st_size:
        target.replace(target.with_suffix(".damaged"))  # keep the damaged file, so that the user can repair it
    entries[_key(workspace)] = [asdict(each) for each in history]
    if not history:
        del entries[_key(workspace)]
    temporary = target.with_suffix(f".{os.getpid()}.new")
    temporary.write_text(json.dumps(entries, indent=1) + "\n", "utf-8")
    temporary.replace(target)
    # `_read` detects a change by the file's time and size. A second write soon after the first may change neither.
    _read.cache_clear()
