"""Measure the time of each stage of a completion."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from policy.tracing import span


class Clock:
    """The time of each stage, in milliseconds. If a stage runs twice, its times are added."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._spent: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        """The time since this object was created, in seconds."""
        return time.perf_counter() - self._started

    @contextlib.contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time inside the `with` block to `stage`, and record it in the trace."""
        started = time.perf_counter()
        try:
            with span(stage):
                yield
        finally:
            self.add(stage, (time.perf_counter() - started) * 1e3)

    def add(self, stage: str, milliseconds: float) -> None:
        """Add `milliseconds` to the time of `stage`."""
        self._spent[stage] = self._spent.get(stage, 0.0) + milliseconds

    def finish(self) -> dict[str, float]:
        """Return the time of each stage, and the `total` time since this object was created."""
        self._spent["total"] = self.seconds * 1e3
        return {stage: round(spent, 3) for stage, spent in self._spent.items()}
