"""Detect whether this machine runs on battery."""

from __future__ import annotations

import time

import psutil

INTERVAL_SECONDS = 20.0


class Power:
    """Checks the battery, at most once in `INTERVAL_SECONDS`, because a check may take milliseconds."""

    def __init__(self) -> None:
        self._looked_at = -INTERVAL_SECONDS
        self._on_battery = False

    def on_battery(self) -> bool:
        """Return whether the machine runs on battery. Return false if it has no battery, or if this is unknown."""
        now = time.monotonic()
        if now - self._looked_at >= INTERVAL_SECONDS:
            self._looked_at = now
            sensors = getattr(psutil, "sensors_battery", None)  # missing on some platforms
            battery = sensors() if sensors else None
            self._on_battery = battery is not None and battery.power_plugged is False
        return self._on_battery
