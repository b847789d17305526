"""Read parameters of messages for which LSP has no type."""

from __future__ import annotations


def member(value: object, name: str) -> object:
    """Return a member of the JSON object `value`, or None if it is no object or lacks the member."""
    return value.get(name) if isinstance(value, dict) else None
