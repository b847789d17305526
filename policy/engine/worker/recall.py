"""What the model made of the prompts it has seen lately: it says the same of the same prompt again.

Undoing, redoing and coming back to a place ask for what was there before, often after the KV cache has moved on to
other text. The key is what the model would see, so whatever it does not see (the rest of a long file) may differ.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from policy.engine.messages import Reading
from policy.engine.worker.decoding import Chosen

KEPT = 128  # prompts

TokenIds = tuple[int, ...]


@dataclass(slots=True)
class Recalled:
    """Of one prompt: what was read behind it, and the tokens that were said, the ending one included, with surprises.

    They follow `base`, the prompt and those of its healed tokens that the model would have written itself, and write
    `expected` first (`policy.prompting.healing`).
    """

    slot: str
    base: tuple[int, ...] = ()
    expected: bytes = b""
    reading: Reading | None = None
    said: list[Chosen] = field(default_factory=list)


class Recall:
    """The latest prompts, each with the slot that asked for it first."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._known: OrderedDict[TokenIds, Recalled] = OrderedDict()

    def of(self, slot: str, prompt: TokenIds) -> Recalled:
        """What is known of a prompt, to be added to."""
        known = self._known.setdefault(prompt, Recalled(slot))
        self._known.move_to_end(prompt)
        if len(self._known) > self._kept:
            self._known.popitem(last=False)
        return known

    def forget_all(self, prefix: str) -> None:
        """Forget what slots whose name begins with `prefix` have asked for."""
        for prompt in [prompt for prompt, known in self._known.items() if known.slot.startswith(prefix)]:
            del self._known[prompt]
