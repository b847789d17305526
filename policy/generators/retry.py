"""How long to wait for a server, and when to use a failed server again.

The failed request is not retried; a later one is sent.

Each failure doubles the delay, up to a minute. The delay is randomized, so that the editors of a team do not all return
at the same moment. `Retry-After` is respected.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

FIRST_DELAY, MAX_DELAY = 1.0, 60.0  # seconds
READ_SECONDS = 10.0  # for each token, including the first; a 7B on a CPU takes this long to read a prompt
MAX_RETRY_AFTER = 600.0  # seconds


class RetrySchedule:
    """Counts consecutive failures. `clock` returns seconds, `chance` a random number in [0, 1]."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self._clock, self._chance = clock, chance
        self._failures = 0
        self._not_before = clock()

    def allowed(self) -> bool:
        """Return whether a request may go to the server now."""
        return self._clock() >= self._not_before

    def failed(self, wanted: float | None = None) -> None:
        """Count a failure. `wanted` is the delay in seconds that the server asked for."""
        delay = min(FIRST_DELAY * 2**self._failures, MAX_DELAY) * (0.5 + self._chance())
        if wanted is not None:
            delay = max(delay, min(wanted, MAX_RETRY_AFTER))
        self._failures = min(self._failures + 1, 16)
        self._not_before = self._clock() + delay

    def succeeded(self) -> None:
        """Reset the count, because the server answered."""
        self._failures = 0
