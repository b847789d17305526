"""Store the threshold to which a workspace is calibrated: a personalized policy (the paper's outlook, section 7).

`repoformer-lsp calibrate` writes a small file in the user's data folder. The file is read with each request, so a
calibration or its undoing takes effect in running servers. A threshold belongs to a workspace and to the model that it
was measured with, identified by the hash of its file. It is not used with another model. Earlier thresholds are kept,
so that each calibration can be undone.
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

MAX_HISTORY = 10
LOCK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """On the day `made`, `threshold` was the best for `model` (file name, with `sha256`) on `blanks` blanks."""

    threshold: float
    model: str
    sha256: str
    blanks: int
    made: str


def workspace_of(path: Path, workspaces: Iterable[Path]) -> Path | None:
    """Return the innermost calibrated folder of `workspaces` that contains `path`, or None."""
    known = _known()
    real = path.resolve()  # both the workspace and the document may be opened through a link
    found = [folder for folder in workspaces if real.is_relative_to(folder.resolve()) and _key(folder) in known]
    return max(found, key=lambda folder: len(folder.parts), default=None)


def threshold_for(workspace: Path, sha256: str) -> float | None:
    """Return the threshold of a workspace for a model, or None if there is none or it cannot be read."""
    history = _known().get(_key(workspace), ())
    return history[-1].threshold if history and history[-1].sha256 == sha256 else None


def fingerprint(model: Path) -> str:
    """Return the SHA-256 of a model's file, or of its shards in order.

    This takes about a tenth of a second for a small model.
    """
    return sha256(shards_of(model))


def store(workspace: Path, calibration: Calibration) -> None:
    """Store a calibration, which takes effect immediately. Raises `OSError`."""
    with _locked():
        history = [*_known().get(_key(workspace), ()), calibration]
        _save(workspace, history[-MAX_HISTORY:])


def undo(workspace: Path) -> tuple[Calibration | None, Calibration | None]:
    """Remove the last calibration of a workspace.

    Return it, and the one before it, which is current now. Raises `OSError`.
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
    """Return the file's entries by workspace, unparsed, because another version may have written some of them."""
    try:
        entries = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _history(value: object) -> tuple[Calibration, ...] | None:
    """Parse one workspace's calibrations. Return None if this version cannot parse them."""
    try:
        history = tuple(Calibration(**each) for each in value)  # type: ignore[attr-defined]
    except TypeError:
        return None
    return history if all(isinstance(each.threshold, int | float) for each in history) else None


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Prevent other processes from writing the file. Raises `OSError` if the file cannot be written."""
    file().parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(file().with_suffix(".lock"), timeout=LOCK_SECONDS):
            yield
    except Timeout as error:
        raise OSError(f"Another process is writing {file()}") from error


def _save(workspace: Path, history: Sequence[Calibration]) -> None:
    """Replace one workspace's calibrations. The other entries of the file do not change, even unreadable ones."""
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
