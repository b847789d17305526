"""Parameters of messages that LSP has no type for."""

from __future__ import annotations


def member(value: object, name: str) -> object:
    """A member of what pygls makes of such parameters: an object of its own, or a dictionary. None where it lacks."""
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)
