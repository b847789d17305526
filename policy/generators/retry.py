"""How long a server is waited for, and when to try a failed one again: a later request is sent, never the same one.

Each failure doubles the delay, up to a minute. The delay is randomised, so that a team's editors do not all return at
the same moment. `Retry-After` is respected.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

FIRST, LONGEST = 1.0, 60.0  # seconds
READ_SECONDS = 10.0  # for each token, the first one too: a 7B on a CPU takes that long to read a prompt
LONGEST_RETRY_AFTER = 600.0


class RetrySchedule:
    """Counts consecutive failures. `clock` gives seconds, `chance` a random number from 0 to 1."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self._clock, self._chance = clock, chance
        self._failures = 0
        self._not_before = clock()

    def allowed(self) -> bool:
        """Whether a request may go to the server now."""
        return self._clock() >= self._not_before

    def failed(self, wanted: float | None = None) -> None:
        """Count a failure. `wanted` is the delay in seconds that the server asked for."""
        delay = min(FIRST * 2**self._failures, LONGEST) * (0.5 + self._chance())
        if wanted is not None:
            delay = max(delay, min(wanted, LONGEST_RETRY_AFTER))
        self._failures = min(self._failures + 1, 16)
        self._not_before = self._clock() + delay

    def succeeded(self) -> None:
        """Count an answer."""
        self._failures = 0
