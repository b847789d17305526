"""Parameters of messages that LSP has no type for."""

from __future__ import annotations


def member(value: object, name: str) -> object:
    """A member of a JSON object; None where `value` is none, or lacks it."""
    return value.get(name) if isinstance(value, dict) else None
