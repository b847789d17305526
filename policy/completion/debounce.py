"""When to begin: at once, unless an answer takes so long that hardly any would come before the next key.

A generation that is given up for the next key costs little: the engine is free again within milliseconds, what it read
stays read, and as often as not the next key agrees with what is being written and joins it. So to wait pays only where
an answer takes many keys: then a request waits about as long as it takes to the next key, and if none comes, somebody
is looking. What the engine has to read is read meanwhile. Measured, not set: the interval of the keys and the time of
an answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PAUSE = 0.8  # seconds: more than that between two keys is no rhythm but a pause
LONGEST = 0.12  # seconds that a request is held back at most
HOPELESS = 6.0  # how many keys an answer may take; `docs/serving.md` has what less and more came to
_WEIGHT = 0.2  # of the newest of the values that are averaged


class Rhythm:
    """How fast somebody types, and how fast they are answered; seconds by `clock`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_key = 0.0
        self._interval: float | None = None
        self._answer: float | None = None

    def key(self) -> None:
        """A key was hit."""
        now = self._clock()
        if (interval := now - self._last_key) < PAUSE:
            self._interval = _mean(self._interval, interval)
        self._last_key = now

    def answered(self, seconds: float) -> None:
        """So long did an answer take that the engine had to make, less what it was held back for."""
        self._answer = _mean(self._answer, seconds)

    def delay(self) -> float:
        """How long to hold back a request that has just come."""
        if self._interval is None or self._answer is None or self._answer <= HOPELESS * self._interval:
            return 0.0
        return min(self._interval, LONGEST)


def _mean(mean: float | None, value: float) -> float:
    return value if mean is None else mean + _WEIGHT * (value - mean)
