"""Offering a better model to a person whose editor started with the one that ships: once, and never after a no.

The answer is kept in the user's state folder, for all editors. A notification that was put off or dismissed may come
back after a month; "Don't ask again" is final. What was fetched by any other way is not offered.
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
    """Who is asked."""

    async def choose(self, text: str, actions: Sequence[str], otherwise: str) -> str | None:
        """Which of `actions` the person takes; None for none of them. Where the client cannot ask, tell `otherwise`."""

    def show(self, severity: Severity, text: str) -> None:
        """Show a message."""

    def show_progress(self, task: str, share: float | None) -> None:
        """Say how far a long task is."""


class Answers:
    """What the person has answered before. A file that cannot be read counts as no answer."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file or Path(platformdirs.user_state_dir("repoformer-lsp", appauthor=False), "offers.json")

    def may_ask(self) -> bool:
        """Whether to ask now."""
        try:
            known = json.loads(self._file.read_text("utf-8"))
            return not known.get("never") and time.time() - float(known.get("asked", 0)) > _MONTH_SECONDS
        except (OSError, ValueError, TypeError, AttributeError):
            return True

    def remember(self, *, never: bool) -> bool:
        """Note that the person is asked now, or wants never to be asked again; whether that could be written."""
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps({"asked": time.time(), "never": never}), "utf-8")
            return True
        return False


async def offer(better: Better, person: Person, answers: Answers) -> bool:
    """Ask whether to fetch a better model, and fetch it; whether it is there now."""
    card = better.card
    # Noted before the question, so that windows that open together ask once; not asked where it cannot be noted.
    if not answers.may_ask() or not answers.remember(never=False):
        log.info("%s would complete better; it is not offered again", card.title)
        return False
    get = f"Download {card.title} ({card.megabytes})"
    text = f"{card.title} completes better than the model that ships, and this machine is fast enough for it."
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
    """Pull a model with progress in the editor; whether it is there now. A failure is shown, and not raised."""
    from policy.models.pull import Observer, pull  # an HTTP client takes a while to load

    loop, stop = asyncio.get_running_loop(), threading.Event()

    def on_loop(call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
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
