"""Count the outcomes of suggestions in a workspace, and shift the showing threshold accordingly.

Only counts are stored, in a small file in the user's state folder, under a hash of the workspace's path: the numbers of
suggestions that the user accepted, typed over and dismissed, and the number that the user was expected to keep
according to the estimates (`policy.gating.keep`). If the user accepts fewer suggestions than expected, the threshold
rises. If the user accepts more, the threshold falls. The shift is limited, and it is small while there are few
outcomes. Each new outcome reduces the weight of all earlier ones.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import platformdirs

Outcome = Literal["accepted", "typed over", "dismissed"]

MOST_SHIFT = 1.0  # the maximum shift in each direction, in log-odds
FADING = 0.995  # each new outcome multiplies the weight of the earlier ones by this, so about the last 200 count
PRIOR = 30.0  # assumed outcomes at the expected rate, which keep the shift small while there are few real outcomes
MAX_WORKSPACES = 200  # the maximum number of workspaces whose counts are kept
_LARGEST = 1 << 20  # bytes; a larger file is not read


@dataclass(frozen=True, slots=True)
class Counts:
    """Weighted counts of outcomes. An older outcome has less weight (`FADING`).

    `expected` is the sum, with the same weights, of the estimated probabilities that the user keeps the texts.
    """

    accepted: float = 0.0
    typed_over: float = 0.0
    dismissed: float = 0.0
    expected: float = 0.0

    @property
    def total(self) -> float:
        """The weighted number of outcomes."""
        return self.accepted + self.typed_over + self.dismissed

    @property
    def shift(self) -> float:
        """The value to add to the log-odds of the showing threshold. If it is positive, fewer suggestions are shown."""
        if self.total <= 0:
            return 0.0
        expected = min(max(self.expected / self.total, 0.01), 0.99)
        seen = (self.accepted + PRIOR * expected) / (self.total + PRIOR)
        seen = min(max(seen, 0.01), 0.99)
        shift = math.log(expected / (1 - expected)) - math.log(seen / (1 - seen))
        return min(max(shift, -MOST_SHIFT), MOST_SHIFT)

    def after(self, outcome: Outcome, p: float) -> Counts:
        """Return the counts with one more outcome. `p` is the estimated probability that the user keeps the text."""
        faded = Counts(*(FADING * getattr(self, field.name) for field in fields(self)))
        faded = replace(faded, expected=faded.expected + p)
        match outcome:
            case "accepted":
                return replace(faded, accepted=faded.accepted + 1)
            case "typed over":
                return replace(faded, typed_over=faded.typed_over + 1)
            case "dismissed":
                return replace(faded, dismissed=faded.dismissed + 1)


def counts_of(workspace: Path) -> Counts:
    """Return the counts of `workspace`. All of them are 0 if the file is missing or damaged."""
    return _read().get(_key(workspace), Counts())


def add(workspace: Path, outcome: Outcome, p: float) -> Counts:
    """Count an outcome, and return the new counts of `workspace`. Raises `OSError` if the file cannot be written.

    If two servers write at the same moment, one of the outcomes may be lost. This hardly changes the shift.
    """
    known, key = dict(_read()), _key(workspace)
    counts = known.pop(key, Counts()).after(outcome, p)
    _save({**known, key: counts})  # the new counts come last, because `_save` keeps only the last `MAX_WORKSPACES`
    return counts


def reset(workspace: Path | None = None) -> int:
    """Delete the counts of `workspace`, or of all workspaces if it is None.

    Return the number of workspaces whose counts were deleted. Raises `OSError` if the file cannot be written.
    """
    known = dict(_read())
    gone = list(known) if workspace is None else [key for key in known if key == _key(workspace)]
    if gone:
        _save({key: counts for key, counts in known.items() if key not in gone})
    return len(gone)


def file() -> Path:
    """Return the path of the file with the counts."""
    return Path(platformdirs.user_state_dir("repoformer-lsp", appauthor=False), "learned.json")


def _key(workspace: Path) -> str:
    return hashlib.sha256(os.fsencode(workspace.resolve())).hexdigest()[:32]


def _read() -> Mapping[str, Counts]:
    try:
        about = file().stat()
    except OSError:
        return {}
    return _read_version(file(), about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=1)
def _read_version(path: Path, _changed: int, size: int) -> Mapping[str, Counts]:
    try:
        told = json.loads(path.read_text("utf-8")) if size <= _LARGEST else None
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(told, dict):
        return {}
    return {key: counts for key, values in told.items() if (counts := _counts(values)) is not None}


def _counts(values: object) -> Counts | None:
    """Return the counts of one workspace from their JSON values, or None if the values are invalid."""
    if not isinstance(values, dict) or values.keys() != {field.name for field in fields(Counts)}:
        return None
    numbers = [values[field.name] for field in fields(Counts)]
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        return None
    counts = Counts(*map(float, numbers))
    most = 1 / (1 - FADING) + 1
    sound = all(math.isfinite(number) and 0 <= number <= most for number in numbers)
    return counts if sound and counts.expected <= counts.total + 1e-6 else None


def _save(every: Mapping[str, Counts]) -> None:
    target = file()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(f".{os.getpid()}.new")
    told = {key: {name: round(value, 4) for name, value in asdict(counts).items()}
            for key, counts in list(every.items())[-MAX_WORKSPACES:]}  # fmt: skip
    temporary.write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    temporary.replace(target)
