"""How long a server is waited for, and when one that failed is asked again, by a later request.

Each failure doubles the time until then, up to a minute; a random share of it is added or taken away, so that a team's
editors do not all come back at the same moment. A server that says when it wants to be asked (`Retry-After`) is obeyed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

FIRST, LONGEST = 1.0, 60.0  # seconds
READ_SECONDS = 10.0  # for each token, the first one too: it takes a 7B on a CPU that long to read a prompt
LONGEST_OBEYED = 600.0


class Attempts:
    """Counts failures in a row. `clock` gives seconds, `chance` a number from 0 to 1."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self._clock, self._chance = clock, chance
        self._failures = 0
        self._not_before = clock()

    def allowed(self) -> bool:
        """Whether it is time to ask."""
        return self._clock() >= self._not_before

    def failed(self, wanted: float | None = None) -> None:
        """It could not be used; `wanted` is the number of seconds it asked for."""
        delay = min(FIRST * 2**self._failures, LONGEST) * (0.5 + self._chance())
        if wanted is not None:
            delay = max(delay, min(wanted, LONGEST_OBEYED))
        self._failures = min(self._failures + 1, 16)
        self._not_before = self._clock() + delay

    def succeeded(self) -> None:
        """It answers."""
        self._failures = 0
