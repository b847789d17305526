"""The lending desk: books go out and come back."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from lending.catalogue import Catalogue
from lending.fees import late_fee
from lending.models import Loan, Member
from lending.money import Money, total

MOST_LOANS = 5
MOST_RENEWALS = 2


class RefusedError(Exception):
    """The desk cannot do what was asked; the message says why."""


class Desk:
    """Keeps the loans of all members."""

    def __init__(self, catalogue: Catalogue, members: list[Member]) -> None:
        self.catalogue = catalogue
        self.members = {member.number: member for member in members}
        self.loans: list[Loan] = []

    def open_loans(self, member: Member) -> list[Loan]:
        """Loans of a member that have not come back."""
        return [loan for loan in self.loans if loan.member_number == member.number and loan.returned_on is None]

    def available(self, isbn: str) -> int:
        """Copies of a book that are on the shelf."""
        out = sum(1 for loan in self.loans if loan.isbn == isbn and loan.returned_on is None)
        return self.catalogue.by_isbn(isbn).copies - out

    def check_out(self, isbn: str, member: Member, today: date) -> Loan:
        """Lend a book. Raises `RefusedError`."""
        if len(self.open_loans(member)) >= MOST_LOANS:
            raise RefusedError(f"{member.name} has {MOST_LOANS} books already")
        if self.available(isbn) < 1:
            raise RefusedError(f"no copy of {self.catalogue.by_isbn(isbn).label} is on the shelf")
        loan = Loan(isbn, member.number, today)
        self.loans.append(loan)
        return loan

    def renew(self, loan: Loan) -> Loan:
        """Let a member keep a book for another period. Raises `RefusedError`."""
        if loan.renewals >= MOST_RENEWALS:
            raise RefusedError("renewed too often")
        return self._replace(loan, replace(loan, renewals=loan.renewals + 1))

    def give_back(self, loan: Loan, today: date) -> Money:
        """Take a book back and return the fee that is due."""
        returned = self._replace(loan, replace(loan, returned_on=today))
        return late_fee(returned, self.members[loan.member_number], today)

    def owed(self, member: Member, today: date) -> Money:
        """What a member would owe if every book came back today."""
        return total([late_fee(loan, member, today) for loan in self.open_loans(member)])

    def _replace(self, old: Loan, new: Loan) -> Loan:
        self.loans[self.loans.index(old)] = new
        return new
