"""Values: a harbour, a reading of its gauge, a tide."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


class TideError(Exception):
    """Something about a harbour or its readings is wrong."""


@dataclass(frozen=True)
class Harbour:
    """A place with a gauge. `chart_datum` is the height of its zero, in metres."""

    code: str
    name: str
    latitude: float
    longitude: float
    chart_datum: float = 0.0

    def depth_at(self, height: float) -> float:
        """Depth of the water at a height of the gauge."""
        return height - self.chart_datum


@dataclass(frozen=True)
class Reading:
    """What the gauge of a harbour said at a moment, in metres."""

    harbour: str
    taken_at: datetime
    height: float

    def is_newer_than(self, other: Reading) -> bool:
        """Whether it was taken later."""
        return self.taken_at > other.taken_at


@dataclass(frozen=True)
class Tide:
    """A turning point of the water."""

    kind: str
    at: datetime
    height: float

    @property
    def is_high(self) -> bool:
        """Whether it is high water."""
        return self.kind == "high"
