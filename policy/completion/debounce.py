"""Delay the start of a completion if the next keystroke would probably cancel the completion.

A generation that the next keystroke cancels costs little: the engine is free again within milliseconds, and the
evaluated prompt stays in the KV cache. About half of the keystrokes match the text that is generated so far, so they do
not cancel the generation. Therefore, a delay is useful only if an answer takes as long as many keystrokes. In this
case, a new request waits for about one interval between keystrokes, while the engine evaluates its prompt. Both the
interval and the time of an answer are measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable

MAX_INTERVAL = 0.8  # seconds; a longer interval between two keystrokes is a pause, and not part of the average
MAX_DELAY = 0.12  # seconds
KEYS_PER_ANSWER = 6.0  # requests are delayed if an answer takes more than this number of intervals (docs/serving.md)
_WEIGHT = 0.2  # the weight of the newest value in the moving averages


class Debounce:
    """Measures how fast the user types and how fast the engine answers. `clock` returns a time in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_key = 0.0
        self._interval: float | None = None
        self._answer: float | None = None

    def key(self) -> None:
        """Record a keystroke."""
        now = self._clock()
        if (interval := now - self._last_key) < MAX_INTERVAL:
            self._interval = _mean(self._interval, interval)
        self._last_key = now

    def since_key(self) -> float:
        """Return the seconds since the last keystroke."""
        return self._clock() - self._last_key

    def answered(self, seconds: float) -> None:
        """Record that a request was answered after `seconds`. The delay before its start does not count."""
        self._answer = _mean(self._answer, seconds)

    def delay(self) -> float:
        """Return the seconds by which to delay a new request."""
        if self._interval is None or self._answer is None or self._answer <= KEYS_PER_ANSWER * self._interval:
            return 0.0
        return min(self._interval, MAX_DELAY)


def _mean(mean: float | None, value: float) -> float:
    return value if mean is None else mean + _WEIGHT * (value - mean)
