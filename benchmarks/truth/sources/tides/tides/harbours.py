"""Which harbours there are, and which is near."""

from __future__ import annotations

from tides.model import Harbour, TideError
from tides.units import distance_km


class Harbours:
    """Harbours by their code."""

    def __init__(self) -> None:
        self._by_code: dict[str, Harbour] = {}

    def add(self, harbour: Harbour) -> None:
        """Take a harbour in; its code must be new."""
        if harbour.code in self._by_code:
            raise TideError(f"harbour {harbour.code} is there already")
        self._by_code[harbour.code] = harbour

    def get(self, code: str) -> Harbour:
        """The harbour with a code."""
        try:
            return self._by_code[code]
        except KeyError:
            raise TideError(f"no harbour {code}") from None

    def nearest(self, latitude: float, longitude: float) -> Harbour:
        """The harbour that is least far from a place."""
        if not self._by_code:
            raise TideError("there are no harbours")
        return min(
            self._by_code.values(),
            key=lambda harbour: distance_km(latitude, longitude, harbour.latitude, harbour.longitude),
        )

    def __len__(self) -> int:
        return len(self._by_code)
