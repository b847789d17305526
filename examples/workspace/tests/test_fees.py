"""Late fees."""

from datetime import date, timedelta

from lending.fees import HIGHEST_FEE, late_fee
from lending.models import LOAN_PERIOD, Loan, Member
from lending.money import ZERO, Money

ADULT = Member(1, "Ada", "ada@example.org")
CHILD = Member(2, "Tim", "tim@example.org", junior=True)
START = date(2024, 3, 1)


def loan_of(member: Member) -> Loan:
    """A loan that began at START."""
    return Loan("978-0-13", member.number, START)


def after(days: int) -> date:
    """A day counted from the due date."""
    return START + LOAN_PERIOD + timedelta(days=days)


def test_nothing_is_due_on_the_due_date() -> None:
    """The due date itself is free."""
    assert late_fee(loan_of(ADULT), ADULT, after(0)) == ZERO


def test_a_day_costs_the_daily_fee() -> None:
    """Adults and juniors pay different rates."""
    assert late_fee(loan_of(ADULT), ADULT, after(1)) == Money(20)
    assert late_fee(loan_of(CHILD), CHILD, after(1)) == Money(5)


def test_a_fee_has_a_limit() -> None:
    """However late, it never costs more."""
    assert late_fee(loan_of(ADULT), ADULT, after(1000)) == HIGHEST_FEE
