"""Choose between the whole prompt of a request and a short one.

A machine that reads slowly needs several seconds for a whole prompt. Until the whole prompt is in the KV cache, such a
machine completes after a *short* prompt, whose token budgets are half or a quarter of the model's. Completions after
short prompts are worse (docs/serving.md), so idle work reads the whole prompt as soon as the user pauses, and a
completion that the user invokes waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from policy.prompting.prompt import Layout, Prompt, PromptBuilder, Tokenizer, Vocabulary

if TYPE_CHECKING:
    from indexer.model import Chunk, Cursor
    from policy.engine.worker.cache import KvCache
    from policy.prompting.prompt import Budgets

SAVES = 64  # a short prompt is used if this saves the reading of at least this many tokens


@dataclass(frozen=True, slots=True)
class SlotPrompt:
    """A prompt and the slot for it. `short` says that it is not the whole prompt of its request."""

    slot: str
    prompt: Prompt
    short: bool = False


class Prompts:
    """Builds the prompts of a model, and chooses the one for a request.

    The token budgets of a short prompt are the model's, divided by `parts`. If `parts` is 1, no prompt is short. Raises
    the same errors as `PromptBuilder`.
    """

    def __init__(
        self, layout: Layout, vocabulary: Vocabulary, tokenizer: Tokenizer, budgets: Budgets, parts: int, cache: KvCache
    ) -> None:
        self.builder = PromptBuilder(layout, vocabulary, tokenizer, budgets)
        self._short: PromptBuilder | None = None
        if parts > 1:
            self._short = PromptBuilder(layout, vocabulary, tokenizer, budgets.divided(parts))
        self._cache = cache

    def choose(self, slot: str, cursor: Cursor, chunks: Sequence[Chunk] | None, *, whole: bool = False) -> SlotPrompt:
        """Return the prompt of a request at `cursor`, with `chunks`, or, if `chunks` is None, without chunks.

        If far fewer tokens of the short prompt have to be read, and `whole` is false, this is the short prompt, which
        has its own slot.
        """
        prompt = SlotPrompt(slot, self.builder.build(cursor, chunks))
        if whole or self._short is None or (missing := self._cache.missing(prompt.prompt.whole)) < SAVES:
            return prompt
        short = SlotPrompt(f"{slot} short", self._short.build(cursor, chunks), short=True)
        return short if self._cache.missing(short.prompt.whole) + SAVES <= missing else prompt
