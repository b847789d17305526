"""Whether this machine runs on its battery."""

from __future__ import annotations

import time

import psutil

INTERVAL_SECONDS = 20.0


class Power:
    """Looks at the battery at most every `INTERVAL_SECONDS`: asking may take the operating system milliseconds."""

    def __init__(self) -> None:
        self._looked_at = -INTERVAL_SECONDS
        self._on_battery = False

    def on_battery(self) -> bool:
        """False on mains, where there is no battery, and where the system does not tell."""
        now = time.monotonic()
        if now - self._looked_at >= INTERVAL_SECONDS:
            self._looked_at = now
            sensors = getattr(psutil, "sensors_battery", None)  # not every platform has it
            battery = sensors() if sensors else None
            self._on_battery = battery is not None and battery.power_plugged is False
        return self._on_battery
