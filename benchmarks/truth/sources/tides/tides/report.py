"""What a skipper reads."""

from __future__ import annotations

from collections.abc import Iterable

from tides.gauge import newest, parse_lines
from tides.harbours import Harbours
from tides.model import Harbour, Reading
from tides.turning import tidal_range, turning_points
from tides.units import format_height


def headline(harbour: Harbour, reading: Reading, unit: str = "m") -> str:
    """The first line of a report."""
    depth = harbour.depth_at(reading.height)
    return f"{harbour.name}: {format_height(depth, unit)} at {reading.taken_at:%H:%M}"


def report(harbours: Harbours, lines: Iterable[str], code: str, unit: str = "m") -> str:
    """A harbour's newest reading, its tides, and their range."""
    harbour = harbours.get(code)
    readings = [reading for reading in parse_lines(lines) if reading.harbour == code]
    last = newest(readings)
    if last is None:
        return f"{harbour.name}: no readings"
    tides = turning_points(readings)
    rows = [headline(harbour, last, unit)]
    rows += [f"  {tide.kind:4} {tide.at:%d.%m. %H:%M}  {format_height(tide.height, unit)}" for tide in tides]
    rows.append(f"  range {format_height(tidal_range(tides), unit)}")
    return "\n".join(rows)


def nearest_report(harbours: Harbours, lines: Iterable[str], latitude: float, longitude: float) -> str:
    harbour = harbours.nearest(latitude, longitude)
    return report(harbours, lines, harbour.code)
