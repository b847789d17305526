"""Show messages to the user. Each problem is shown once, when it appears, and not at every keystroke."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

log = logging.getLogger(__name__)

Severity = Literal["error", "warning", "info"]
_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO}


class Notices:
    """Shows a message, unless it is the same as the previous message about its topic ("settings", "engine", …)."""

    def __init__(self, show: Callable[[Severity, str], None]) -> None:
        self._show = show
        self._said: dict[str, str] = {}

    def tell(self, topic: str, text: str, severity: Severity = "error") -> None:
        """Show and log `text`, unless it is the previous message about `topic`."""
        if self._said.get(topic) == text:
            return
        self._said[topic] = text
        log.log(_LEVELS[severity], "%s", text)
        self._show(severity, text)

    def settle(self, topic: str) -> None:
        """Record that the problem of `topic` is solved. If the problem returns, its message is shown again."""
        self._said.pop(topic, None)
