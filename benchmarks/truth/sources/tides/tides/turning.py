"""High and low water: the turning points of a row of readings."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from tides.model import Reading, Tide

QUIET = timedelta(hours=3)


def turning_points(readings: Sequence[Reading]) -> list[Tide]:
    """Readings higher, or lower, than both neighbours, at least `QUIET` apart."""
    ordered = sorted(readings, key=lambda reading: reading.taken_at)
    tides: list[Tide] = []
    for before, here, after in zip(ordered, ordered[1:], ordered[2:], strict=False):
        if here.height > before.height and here.height >= after.height:
            kind = "high"
        elif here.height < before.height and here.height <= after.height:
            kind = "low"
        else:
            continue
        if tides and here.taken_at - tides[-1].at < QUIET:
            continue
        tides.append(Tide(kind, here.taken_at, here.height))
    return tides


def tidal_range(tides: Sequence[Tide]) -> float:
    """Mean height of the high waters less that of the low ones."""
    high = [tide.height for tide in tides if tide.is_high]
    low = [tide.height for tide in tides if not tide.is_high]
    if not high or not low:
        return 0.0
    return sum(high) / len(high) - sum(low) / len(low)
