"""What a late return costs."""

from __future__ import annotations

from datetime import date

from lending.models import Loan, Member
from lending.money import ZERO, Money

DAILY_FEE = Money(20)
JUNIOR_DAILY_FEE = Money(5)
HIGHEST_FEE = Money(1500)


def late_fee(loan: Loan, member: Member, today: date) -> Money:
    """The fee for one loan: a daily rate, lower for juniors, and never more than the highest fee."""
    days = loan.days_late(today)
    if days == 0:
        return ZERO
    rate = JUNIOR_DAILY_FEE if member.junior else DAILY_FEE
    return min(rate * days, HIGHEST_FEE)
