"""Offer the user a better model than the one in use.

The answer is stored in the user's state folder, and applies to all editors. After "Don't ask again", no model is
offered any more. After any other answer, no model is offered for a month. An installed model is never offered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import platformdirs

from lsp_server.notices import Severity
from policy.errors import ModelError
from policy.models.locate import cache_dir

if TYPE_CHECKING:
    from policy.models.card import Card
    from policy.models.choice import Better

log = logging.getLogger(__name__)

LATER, NEVER = "Not now", "Don't ask again"
_MONTH_SECONDS = 30 * 24 * 3600


class Person(Protocol):
    """The user, whom the server can reach through the client."""

    async def choose(self, text: str, actions: Sequence[str], otherwise: str) -> str | None:
        """Ask the user the question `text`. Return the chosen action, or None if the user chose none.

        If the client cannot ask, show the message `otherwise` instead and return None.
        """

    def show(self, severity: Severity, text: str) -> None:
        """Show a message."""

    def show_progress(self, task: str, share: float | None) -> None:
        """Show the progress of a long task. `share` is from 0 to 1, or None if it is unknown. 1 ends the task."""


class Answers:
    """The user's stored answer to an offer. If the file cannot be read, the user has not answered."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file or Path(platformdirs.user_state_dir("repoformer-lsp", appauthor=False), "offers.json")

    def may_ask(self) -> bool:
        """Return whether the user may be asked now."""
        try:
            known = json.loads(self._file.read_text("utf-8"))
            return not known.get("never") and time.time() - float(known.get("asked", 0)) > _MONTH_SECONDS
        except (OSError, ValueError, TypeError, AttributeError):
            return True

    def remember(self, *, never: bool) -> bool:
        """Store that the user is asked now, and whether the user never wants to be asked again.

        Return whether the file could be written.
        """
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps({"asked": time.time(), "never": never}), "utf-8")
            return True
        return False


async def offer(better: Better, person: Person, answers: Answers) -> bool:
    """Ask the user whether to download a better model, and download it. Return whether it was downloaded."""
    card = better.card
    # The time is stored before the question, so that only one window asks. If it cannot be stored, no window asks.
    if not answers.may_ask() or not answers.remember(never=False):
        log.info("%s is better than the model in use, but was already offered", card.title)
        return False
    get = f"Download {card.title} ({card.megabytes})"
    text = f"{card.title} gives better completions than the built-in model, and this machine is fast enough for it."
    answer = await person.choose(
        text,
        [get, LATER, NEVER],
        f"{text} To get it ({card.megabytes}), run the command `repoformer.getModel` (in Neovim `:Repoformer model`, "
        f"in Emacs `M-x repoformer-get-model`), or `repoformer-lsp model pull {card.name}` and restart the editor.",
    )
    if answer == NEVER:
        answers.remember(never=True)
    return answer == get and await fetch(card, person)


async def fetch(card: Card, person: Person) -> bool:
    """Download a model, and show the progress in the editor. Return whether the download succeeded.

    If it fails, the user gets a message.
    """
    from policy.models.pull import Observer, pull  # imported only here, because the import of an HTTP client is slow

    loop, stop = asyncio.get_running_loop(), threading.Event()

    def on_loop(call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # raised if the loop is closed
            loop.call_soon_threadsafe(call)

    def progress(done: int, total: int) -> None:
        on_loop(lambda: person.show_progress("pull", min(done / total, 0.99)))

    observer = Observer(log.info, progress, stop)
    person.show_progress("pull", 0.0)
    try:
        await asyncio.to_thread(pull, card, cache_dir(), "auto", observer)
    except ModelError as error:
        log.warning("%s", error)
        person.show("warning", str(error))
        return False
    finally:
        stop.set()
        person.show_progress("pull", 1.0)
    return True
