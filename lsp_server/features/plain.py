"""Read the parameters of messages that LSP does not define. They are JSON values, and may be invalid."""

from __future__ import annotations


def member(value: object, name: str) -> object:
    """Return the member `name` of the JSON object `value`, or None if `value` is not an object or lacks the member."""
    return value.get(name) if isinstance(value, dict) else None
