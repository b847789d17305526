"""Reading gauges: a line of text a reading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from tides.model import Reading, TideError
from tides.units import metres_from_feet


def parse_line(line: str) -> Reading:
    """`CODE;2026-03-01T12:00;3.2` (metres), or with `ft` behind the number."""
    fields = line.strip().split(";")
    if len(fields) != 3:
        raise TideError(f"a reading has three fields: {line!r}")
    code, moment, height = fields
    return Reading(code, datetime.fromisoformat(moment), parse_height(height))


def parse_height(text: str) -> float:
    """Metres of a height in metres or feet."""
    if text.endswith("ft"):
        return metres_from_feet(float(text.removesuffix("ft")))
    return float(text)


def parse_lines(lines: Iterable[str]) -> Iterator[Reading]:
    for line in lines:
        if line.strip() and not line.startswith("#"):
            yield parse_line(line)


def newest(readings: Iterable[Reading]) -> Reading | None:
    """The reading that was taken last, None of none."""
    found: Reading | None = None
    for reading in readings:
        if found is None or reading.is_newer_than(found):
            found = reading
    return found
