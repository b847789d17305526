"""Lengths and angles, as people write them."""

from __future__ import annotations

import math

METRES_PER_FOOT = 0.3048
EARTH_RADIUS_KM = 6371.0


def metres_from_feet(feet: float) -> float:
    return feet * METRES_PER_FOOT


def feet_from_metres(metres: float) -> float:
    return metres / METRES_PER_FOOT


def format_height(metres: float, unit: str = "m") -> str:
    """A height with its unit: `3.20 m`, or `10.5 ft`."""
    if unit == "ft":
        return f"{feet_from_metres(metres):.1f} ft"
    return f"{metres:.2f} m"


def distance_km(latitude: float, longitude: float, other_latitude: float, other_longitude: float) -> float:
    """Great-circle distance by the haversine formula."""
    phi, other_phi = math.radians(latitude), math.radians(other_latitude)
    half_phi = (other_phi - phi) / 2
    half_lambda = math.radians(other_longitude - longitude) / 2
    h = math.sin(half_phi) ** 2 + math.cos(phi) * math.cos(other_phi) * math.sin(half_lambda) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(h))
