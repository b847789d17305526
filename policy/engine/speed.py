"""How fast this machine runs a model: measured once, stored, and compared with the speed that typing needs.

The speed is judged by the time for a line of 12 tokens after a keystroke: with a warm cache, the model reads a few
prompt tokens, then generates the line. While other programs use the processors, the measured time is too long. So the
module also measures the share of the processors that other processes used. A measurement with a large share is not
stored. It excludes a model only if the model would be too slow on the whole machine as well. A stored speed that
excludes a model is valid for a week. `doctor` measures again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs
import psutil

from policy.engine import libraries
from policy.engine.settings import EngineSettings
from policy.prompting.prompt import Budgets

# A model that needs more time for a line is too slow for typing. When Qwen2.5-Coder 0.5B needed 0.6 to 0.7 s, it still
# showed more of the typed characters in advance than the built-in model (docs/serving.md).
LIMIT_SECONDS = 0.8
OFFERED_SECONDS = 0.6  # limit for a model that is not installed, whose expected time can be a third too short
LINE_TOKENS = 12  # generated tokens of a line
TYPED_TOKENS = 4  # prompt tokens that a keystroke adds or changes
# Short prompts are used if a whole one without chunks takes longer to read than this. When it took 4.2 or 5.6 s, far
# fewer keys had a suggestion in time than when it took 2.8 s (docs/serving.md, "Short prompts on a slow machine").
READ_SECONDS = 3.0
_DISTURBS = 0.25  # a measurement counts only if other processes used at most this share of the processors
# Without other processes, a line takes about the measured time, multiplied by the share of the processors that they
# left to the model. Beside one to four busy processes on two cores, this product was 0.8 to 1.3 times the real value.
_DOUBT = 1.3
_HOLDS_SECONDS = 7 * 24 * 3600  # how long a stored speed that excludes a model is valid
# The time per token grows with the size of the weights, raised to these powers. Measured with models of 135M, 0.5B and
# 1.5B weights (two cores, AVX2).
_READING_GROWS, _WRITING_GROWS = 1.0, 0.6


@dataclass(frozen=True, slots=True)
class Speed:
    """Milliseconds per token of the prompt (`read_ms`), and per generated token (`write_ms`).

    `others` is the share of the processors that other processes used during the measurement, in [0, 1].
    """

    read_ms: float
    write_ms: float
    others: float = 0.0

    @property
    def line_seconds(self) -> float:
        """Seconds for a line of 12 tokens after a keystroke, with a warm cache."""
        return (TYPED_TOKENS * self.read_ms + LINE_TOKENS * self.write_ms) / 1e3

    @property
    def worth_offering(self) -> bool:
        """Whether a model with this expected speed is fast enough to offer it to the user."""
        return self.line_seconds <= OFFERED_SECONDS

    @property
    def too_slow(self) -> bool:
        """Whether the model is too slow for typing, even if other processes left the processors to it."""
        if self.undisturbed:
            return self.line_seconds > LIMIT_SECONDS
        return self.line_seconds * (1 - self.others) > _DOUBT * LIMIT_SECONDS

    @property
    def undisturbed(self) -> bool:
        """Whether the measurement counts, because other processes used little of the processors."""
        return self.others <= _DISTURBS

    def parts(self, budgets: Budgets) -> int:
        """Return by which number to divide `budgets` for short prompts: 1 (no prompt is short), 2 or 4.

        It is the smallest of these with which this machine reads a prompt without chunks in `READ_SECONDS`, or 4. There
        are only three values, because servers with different values cannot share an engine.
        """
        seconds = (budgets.left + budgets.right) * self.read_ms / 1e3
        return next((parts for parts in (1, 2) if seconds / parts <= READ_SECONDS), 4)

    def of_size(self, size: int, other: int) -> Speed:
        """Return the expected speed of a model of `other` bytes, if this is the speed of a model of `size` bytes."""
        ratio = other / max(size, 1)
        return Speed(self.read_ms * ratio**_READING_GROWS, self.write_ms * ratio**_WRITING_GROWS)


class OtherProcesses:
    """Measures the share of the processors that other processes use from its creation on."""

    def __init__(self) -> None:
        self._began, self._process = time.monotonic(), psutil.Process()
        self._before = self._taken()

    def _taken(self) -> float:
        """Return the processor seconds that other processes have used since the machine was started."""
        times, own = psutil.cpu_times(), self._process.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        # The guest times are also part of the user and nice times, so they must not count twice.
        counted = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        return float(counted - idle - own.user - own.system)

    def share(self) -> float:
        """Return the share of the processors that other processes used since this object was created, in [0, 1]."""
        whole = (time.monotonic() - self._began) * (psutil.cpu_count() or 1)
        return min(max((self._taken() - self._before) / max(whole, 1e-3), 0.0), 1.0)


class Speeds:
    """The speeds measured on this machine, in a file in the user's cache.

    A file that cannot be read counts as empty.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file or Path(platformdirs.user_cache_dir("repoformer-lsp", appauthor=False), "speed.json")

    def of(self, model: Path, settings: EngineSettings | None = None) -> Speed | None:
        """Return the stored speed of a model file, or None if the speed has to be measured."""
        try:
            found = self._all()[_key(model, settings or EngineSettings())]
            speed = Speed(float(found["read_ms"]), float(found["write_ms"]))
            fresh = time.time() - float(found["at"]) < _HOLDS_SECONDS
        except (KeyError, TypeError, ValueError, OSError):
            return None
        return speed if fresh or not speed.too_slow else None

    def remember(self, model: Path, speed: Speed, settings: EngineSettings | None = None) -> None:
        """Store `speed` if its measurement is undisturbed. Errors in writing the file are ignored."""
        if not speed.undisturbed:
            return
        with contextlib.suppress(OSError):
            values = self._all() | {_key(model, settings or EngineSettings()): {**asdict(speed), "at": time.time()}}
            self._file.parent.mkdir(parents=True, exist_ok=True)
            written = self._file.with_suffix(".new")
            written.write_text(json.dumps(values), "utf-8")
            written.replace(self._file)

    def _all(self) -> dict[str, dict[str, float]]:
        try:
            values = json.loads(self._file.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}


def _key(model: Path, settings: EngineSettings) -> str:
    """Return a hash of the machine, the library, the model file, and the settings that affect the speed.

    Raises `OSError` if the file does not exist.
    """
    status = model.stat()
    library = settings.library or os.environ.get(libraries.ENVIRONMENT) or libraries.versions()
    parts = [platform.node(), platform.processor(), library, model.resolve(), status.st_size, status.st_mtime_ns]
    parts += [settings.threads, settings.gpu_layers, settings.extra_buffers]
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]
