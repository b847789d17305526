"""Figures for the yearly report."""

from __future__ import annotations

from collections import Counter
from datetime import date

from lending.desk import Desk
from lending.fees import late_fee
from lending.models import Book
from lending.money import ZERO, Money


def most_borrowed(desk: Desk, count: int = 10) -> list[tuple[Book, int]]:
    """The most borrowed books and how often they were."""
    loans = Counter(loan.isbn for loan in desk.loans)
    return [(desk.catalogue.by_isbn(isbn), times) for isbn, times in loans.most_common(count)]


def fees_of_year(desk: Desk, year: int) -> Money:
    """All fees for books that came back in a year."""
    result = ZERO
    for loan in desk.loans:
        if loan.returned_on is not None and loan.returned_on.year == year:
            member = desk.members[loan.member_number]
            result = result + late_fee(loan, member, loan.returned_on)
    return result


def mean(values: list[float]) -> float:
    """The arithmetic mean, 0 for no values."""
    if not values:
        return 0.0
    return sum(values) / len(values)


def mean_loan_days(desk: Desk, today: date) -> float:
    """How many days a book is out on average."""
    return mean([float(((loan.returned_on or today) - loan.borrowed_on).days) for loan in desk.loans])
