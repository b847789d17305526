"""What the library knows: books, members, loans."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

LOAN_PERIOD = timedelta(days=21)


@dataclass(frozen=True)
class Book:
    """A title on the shelf; several copies share an ISBN."""

    isbn: str
    title: str
    author: str
    year: int
    copies: int = 1

    @property
    def label(self) -> str:
        """Title, author and year in one line."""
        return f"{self.title} by {self.author} ({self.year})"


@dataclass(frozen=True)
class Member:
    """Somebody who may borrow books."""

    number: int
    name: str
    email: str
    junior: bool = False


@dataclass(frozen=True)
class Loan:
    """A book that a member has taken home."""

    isbn: str
    member_number: int
    borrowed_on: date
    renewals: int = 0
    returned_on: date | None = None

    @property
    def due_on(self) -> date:
        """The last day on which the book may come back without a fee."""
        return self.borrowed_on + LOAN_PERIOD * (1 + self.renewals)

    def days_late(self, today: date) -> int:
        """Days between the due date and the return, or today where the book is still out."""
        end = self.returned_on or today
        return max(0, (end - self.due_on).days)
