"""Show the progress of a download.

On a terminal, one line is rewritten. Elsewhere, a line is written for each 10%. For programs, JSON lines are written.
"""

from __future__ import annotations

import json
import time
from typing import TextIO

_WIDTH = 30
_REDRAW_SECONDS = 0.1


class Bar:
    """Writes to `out` how many bytes were downloaded."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._rewrites = out.isatty()
        self._began = self._drawn = time.monotonic()
        self._first: int | None = None
        self._tenth = 0
        self._open = False

    def show(self, done: int, total: int) -> None:
        """Show that `done` of `total` bytes were downloaded. This is fast enough to call for each block."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._began = done, now
            self._tenth = done * 10 // total
        rate = (done - self._first) / max(now - self._began, 1e-3)
        text = f"{done * 100 // total:3}%  {done / 1e6:,.0f} of {total / 1e6:,.0f} MB  {rate / 1e6:,.1f} MB/s"
        if self._rewrites:
            if now - self._drawn >= _REDRAW_SECONDS or done == total:
                full = done * _WIDTH // total
                self._out.write(f"\r[{'#' * full}{'.' * (_WIDTH - full)}] {text}\x1b[K")
                self._out.flush()
                self._drawn, self._open = now, True
        elif done * 10 // total > self._tenth:
            self._tenth = done * 10 // total
            self._out.write(text + "\n")
            self._out.flush()

    def close(self) -> None:
        """End the line, so that the next output starts on a new line."""
        if self._open:
            self._out.write("\n")
            self._open = False


class JsonLines:
    """Writes a line to `out` for each percent: a JSON object with `done` and `total`, in bytes."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._percent = -1

    def show(self, done: int, total: int) -> None:
        """Write a line if the percentage has changed since the last line."""
        percent = done * 100 // total
        if percent != self._percent:
            self._percent = percent
            print(json.dumps({"done": done, "total": total}), file=self._out, flush=True)

    def close(self) -> None:
        """Do nothing, because every line is complete."""
