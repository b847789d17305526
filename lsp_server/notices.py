"""What a person is told, and how often: a problem once, when it appears, never a popup a keystroke."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

log = logging.getLogger(__name__)

Severity = Literal["error", "warning", "info"]
_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO}


class Notices:
    """Remembers what was last said about each topic ("settings", "model", …) and says only what is new."""

    def __init__(self, show: Callable[[Severity, str], None]) -> None:
        self._show = show
        self._said: dict[str, str] = {}

    def tell(self, topic: str, text: str, severity: Severity = "error") -> None:
        """Show `text` and log it, unless it is what was last said about `topic`."""
        if self._said.get(topic) == text:
            return
        self._said[topic] = text
        log.log(_LEVELS[severity], "%s", text)
        self._show(severity, text)

    def settle(self, topic: str) -> None:
        """The problem is over: should it come back, it is news again."""
        self._said.pop(topic, None)
