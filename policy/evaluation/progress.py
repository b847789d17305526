"""Show the progress of a run: one updating line in a terminal, or a line every `LOG_SECONDS` in a log."""

from __future__ import annotations

import sys
import time

WIDTH = 30
LOG_SECONDS = 30.0


class Bar:
    """A progress bar on standard error, with an estimate of the remaining time. `what` names the work."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._started = time.monotonic()
        self._first: int | None = None
        self._last_shown = float("-inf")

    def __call__(self, done: int, total: int) -> None:
        """Report that `done` of `total` items are done."""
        now = time.monotonic()
        self._first = done if self._first is None else self._first
        terminal = sys.stderr.isatty()
        if not terminal and done < total and now - self._last_shown < LOG_SECONDS:
            return
        self._last_shown = now
        spent, new = now - self._started, done - self._first
        left = f", {_duration(spent / new * (total - done))} left" if new and done < total else ""
        filled = WIDTH * done // total if total else WIDTH
        bar = f"[{'=' * filled}{' ' * (WIDTH - filled)}] " if terminal else ""
        end = "\n" if not terminal or done == total else ""
        start = "\r\033[K" if terminal else ""
        print(f"{start}{self._what} {bar}{done} of {total}{left}", end=end, file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
