"""Decide when to use a server again after a failure.

The failed request itself is not repeated. The first request after a delay goes to the server.

Each failure doubles the delay, up to a minute. The delay is then multiplied by a random factor from 0.5 to 1.5, so that
the editors of a team do not all use the server again at the same moment. If the server asks for a longer delay
(`Retry-After`), that delay is used, up to ten minutes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

FIRST_DELAY, MAX_DELAY = 1.0, 60.0  # seconds
READ_SECONDS = 10.0  # the time limit for each token; a 7B model on a CPU takes about this long for its first token
MAX_RETRY_AFTER = 600.0  # seconds; a longer `Retry-After` is reduced to this


class RetrySchedule:
    """The time of the next request to a server, computed from the number of consecutive failures.

    `clock` returns a time in seconds, and `chance` a random number in [0, 1].
    """

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
        """Count a failure, and set the delay. `wanted` is the delay in seconds that the server asked for, or None."""
        delay = min(FIRST_DELAY * 2**self._failures, MAX_DELAY) * (0.5 + self._chance())
        if wanted is not None:
            delay = max(delay, min(wanted, MAX_RETRY_AFTER))
        self._failures = min(self._failures + 1, 16)
        self._not_before = self._clock() + delay

    def succeeded(self) -> None:
        """Reset the count of failures, because the server answered."""
        self._failures = 0
