"""Loans in a JSON file."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

from lending.models import Loan


def save_loans(loans: list[Loan], path: Path) -> None:
    """Write all loans to a file, one object a loan."""
    rows = [
        {
            "isbn": loan.isbn,
            "member": loan.member_number,
            "borrowed_on": loan.borrowed_on.isoformat(),
            "renewals": loan.renewals,
            "returned_on": loan.returned_on.isoformat() if loan.returned_on else None,
        }
        for loan in loans
    ]
    path.write_text(json.dumps(rows, indent=2), encoding="utf-8")


def load_loans(path: Path) -> list[Loan]:
    """Read the loans that `save_loans` wrote."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [
        Loan(
            isbn=row["isbn"],
            member_number=row["member"],
            borrowed_on=date.fromisoformat(row["borrowed_on"]),
            renewals=row["renewals"],
            returned_on=date.fromisoformat(row["returned_on"]) if row["returned_on"] else None,
        )
        for row in rows
    ]
