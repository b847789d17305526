"""Time spent by stage."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Milliseconds by stage; the times of a stage that runs twice add up."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._spent: dict[str, float] = {}

    @contextlib.contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Count the time inside the block towards `stage`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, (time.perf_counter() - started) * 1e3)

    def add(self, stage: str, milliseconds: float) -> None:
        """Count time that was measured elsewhere."""
        self._spent[stage] = self._spent.get(stage, 0.0) + milliseconds

    def finish(self) -> dict[str, float]:
        """Return all stages, and the `total` since the clock was made."""
        self._spent["total"] = (time.perf_counter() - self._started) * 1e3
        return {stage: round(spent, 3) for stage, spent in self._spent.items()}
