"""The results of recent prompts, so that the model generates the same text for the same prompt again.

Undoing, redoing and returning to an earlier position repeat a prompt, often after other text has replaced it in the KV
cache. The key of a result is its prompt. So a result is found even if text that is not in the prompt has changed, such
as the rest of a long file.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from policy.engine.messages import Reading
from policy.engine.worker.decoding import Chosen

MAX_PROMPTS = 128

TokenIds = tuple[int, ...]


@dataclass(slots=True)
class Recalled:
    """The results for one prompt: its reading, and the generated tokens, including the end token.

    `base` is the prompt and those tokens of the healed word (`policy.prompting.healing`) that the model would generate
    itself. `chosen` has the generated tokens after `base`. The first of them spell `expected`, the rest of the healed
    word. `slot` is the slot that used the prompt first.
    """

    slot: str
    base: TokenIds = ()
    expected: bytes = b""
    reading: Reading | None = None
    chosen: list[Chosen] = field(default_factory=list)


class Recall:
    """The results of the latest prompts, at most `kept` of them."""

    def __init__(self, kept: int = MAX_PROMPTS) -> None:
        self._kept = kept
        self._known: OrderedDict[TokenIds, Recalled] = OrderedDict()

    def of(self, slot: str, prompt: TokenIds) -> Recalled:
        """Return the stored results of a prompt, or empty ones for a new prompt. The caller adds to them."""
        known = self._known.setdefault(prompt, Recalled(slot))
        self._known.move_to_end(prompt)
        if len(self._known) > self._kept:
            self._known.popitem(last=False)
        return known

    def forget_all(self, prefix: str) -> None:
        """Remove the prompts of slots whose name begins with `prefix`."""
        for prompt in [prompt for prompt, known in self._known.items() if known.slot.startswith(prefix)]:
            del self._known[prompt]
