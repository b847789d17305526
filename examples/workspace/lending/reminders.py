"""Letters to members whose books are late."""

from __future__ import annotations

from datetime import date

from lending.desk import Desk
from lending.models import Loan, Member


def late_loans(desk: Desk, member: Member, today: date) -> list[Loan]:
    """Loans of a member that are past their due date."""
    return [loan for loan in desk.open_loans(member) if loan.days_late(today) > 0]


def reminder(desk: Desk, member: Member, today: date) -> str:
    """The text of a letter, empty where nothing is late."""
    loans = late_loans(desk, member, today)
    if not loans:
        return ""
    lines = [f"Dear {member.name},", "", "these books should be back by now:"]
    for loan in loans:
        book = desk.catalogue.by_isbn(loan.isbn)
        lines.append(f"- {book.label}, due on {loan.due_on.isoformat()}")
    fee = desk.owed(member, today)
    lines += ["", f"If you bring them today, the fee is {fee.format()}.", "", "Your library"]
    return "\n".join(lines)
