"""Amounts of money in whole cents, so that nothing is lost to rounding."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Money:
    """An amount in cents."""

    cents: int = 0

    def __add__(self, other: Money) -> Money:
        return Money(self.cents + other.cents)

    def __mul__(self, factor: int) -> Money:
        return Money(self.cents * factor)

    def __bool__(self) -> bool:
        return self.cents != 0

    def format(self, symbol: str = "€") -> str:
        """The amount as people write it, such as `€ 2.50`."""
        whole, rest = divmod(self.cents, 100)
        return f"{symbol} {whole}.{rest:02}"


ZERO = Money(0)


def total(amounts: list[Money]) -> Money:
    """The sum of all amounts."""
    result = ZERO
    for amount in amounts:
        result = result + amount
    return result
