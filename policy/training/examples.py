"""Turn blanks into training examples: token ids, and the positions that count for each loss.

An example is a prompt, the tokens of the blank's truth, and the end token. `policy.prompting.prompt.PromptBuilder`
builds the prompt, exactly as for the server. The truth is tokenized separately from L, the text before the blank,
because the server also appends generated tokens to the tokens of L. A half-typed word is therefore split at the cursor.
R is the text after the blank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from indexer.model import Chunk, Cursor
from policy.prompting.prompt import LAYOUTS, Budgets, Prompt, PromptBuilder

from .base import Base
from .blanks import Blank
from .manifest import TrainingError
from .probes import Probe


@dataclass(frozen=True, slots=True)
class Example:
    """A training sequence. `middle` is the index of the truth's first token.

    L has the indexes from `left` to `left_end` (exclusive). `decision` is the index of the token after `<eof>`, which
    is the target of the decision, or 0 if the sequence has no decision. `probes` are further decisions in L, as pairs:
    the number of tokens before the probe, and the target token.
    """

    tokens: tuple[int, ...]
    middle: int
    left: int
    left_end: int
    decision: int = 0
    probes: tuple[tuple[int, int], ...] = ()


class ExampleBuilder:
    """Builds the examples of one corpus for one model, one layout and one set of budgets.

    `max_middle` is the maximum number of tokens of a truth. Raises `TrainingError` for an unknown layout.
    """

    def __init__(self, corpus: Path, base: Base, layout: str, budgets: Budgets, max_middle: int = 256) -> None:
        if layout not in LAYOUTS:
            raise TrainingError(f"unknown layout {layout!r}; known: {', '.join(LAYOUTS)}")
        self.corpus = corpus
        self.base = base
        self.max_middle = max_middle
        self.prompts = PromptBuilder(LAYOUTS[layout], base.vocabulary, base.tokenizer, budgets, heal=False)
        self.left_only = PromptBuilder(LAYOUTS["prefix-only"], base.vocabulary, base.tokenizer, budgets, heal=False)
        self._text = lru_cache(maxsize=4096)(lambda path: Path(path).read_text("utf-8"))
        self._lines = lru_cache(maxsize=1024)(lambda path: self._text(path).split("\n"))

    def text(self, blank: Blank) -> str:
        """Return the truth of a blank, which is the removed text."""
        return self._source(blank)[blank.start : blank.end]

    def cursor(self, blank: Blank) -> Cursor:
        """Return the cursor at a blank, as in a request to the server."""
        text = self._source(blank)
        path = self.corpus / blank.repository / blank.path
        return Cursor(str(path), text[: blank.start], text[blank.end :], blank.language)

    def chunks(self, blank: Blank) -> list[Chunk]:
        """Return the retrieved chunks of a blank with their text, best first."""
        root = self.corpus / blank.repository
        found = []
        for hit in blank.hits:
            lines = self._lines(str(root / hit.path))[hit.start_line - 1 : hit.end_line]
            found.append(
                Chunk(str(root), hit.path, hit.start_line, hit.end_line, "\n".join(lines), "block", hit.header)
            )
        return found

    def build(self, blank: Blank, *, context: bool) -> Example | None:
        """Return the sequence with or without the retrieved chunks, or None if the truth has too many tokens."""
        chunks = self.chunks(blank) if context else None
        return self._complete(self.prompts.build(self.cursor(blank), chunks), blank)

    def build_labeled(self, blank: Blank, *, positive: bool) -> list[Example]:
        """Return the examples of a labeled blank: its decision, and its completion on the branch of the label.

        A negative blank gives one sequence, which ends with `<eof>`, `<fim_middle>` and the truth. A positive blank
        gives one sequence if the retrieved prompt of the layout begins with the prompt for the decision and `<cc>`.
        Otherwise a positive blank gives two sequences: the prompt for the decision with `<cc>`, and the retrieved
        prompt with the truth. L and R have the same length with both labels, so that the length does not reveal the
        label.
        """
        layout, ids = self.prompts.layout, self.base.vocabulary.ids
        cursor = self.cursor(blank)
        asked = self.prompts.decide(cursor).tokens
        example = self.build(blank, context=positive)
        if not positive or layout.with_context[: len(layout.decide) + 1] == (*layout.decide, "cc"):
            return [replace(example, decision=len(asked))] if example else []
        decided = Example((*asked, ids["cc"]), len(asked) + 1, 0, 0, len(asked))
        return [decided, example] if example else [decided]

    def add_probes(self, example: Example, blank: Blank, probes: Sequence[Probe]) -> Example:
        """Return the plain `example` of a blank, with those of `probes` whose positions are token borders in L.

        If the decision does not directly follow L in the layout, there can be no probes, and `example` is returned.
        """
        if self.prompts.layout.decide[-2:] != ("L", "eof"):
            return example
        ids, prefix = self.base.vocabulary.ids, self.cursor(blank).prefix
        left = example.tokens[example.left : example.left_end]
        kept = []
        for at, helpful in probes:
            rest = tuple(self.base.tokenizer.encode(prefix[at:]))
            if len(rest) < len(left) and left[len(left) - len(rest) :] == rest:
                kept.append((example.left_end - len(rest), ids["cc"] if helpful else ids["middle"]))
        return replace(example, probes=tuple(kept))

    def build_left_only(self, blank: Blank) -> Example | None:
        """Return the sequence that contains only L and the truth, for measuring the base model."""
        return self._complete(self.left_only.without_context(self.cursor(blank)), blank)

    def _complete(self, prompt: Prompt, blank: Blank) -> Example | None:
        middle = self.base.tokenizer.encode(self.text(blank))
        if len(middle) > self.max_middle:
            return None
        prefix = self.base.vocabulary.ids["prefix"]
        left = prompt.tokens.index(prefix) + 1 if prefix in prompt.tokens else 0
        tokens = (*prompt.tokens, *middle, self.base.end)
        return Example(tokens, len(prompt.tokens), left, left + prompt.left_tokens)

    def _source(self, blank: Blank) -> str:
        text: str = self._text(str(self.corpus / blank.repository / blank.path))
        if len(text) < blank.end:
            raise TrainingError(f"{blank.path} of {blank.repository} is not the file that the blanks were drawn from")
        return text


def micro_batches(examples: Sequence[Example], tokens: int) -> Iterator[list[Example]]:
    """Yield groups of examples with similar lengths.

    A group has at most `tokens` tokens, including padding, or is a single example.
    """
    group: list[Example] = []
    for example in sorted(examples, key=lambda example: len(example.tokens)):
        if group and len(example.tokens) * (len(group) + 1) > tokens:
            yield group
            group = []
        group.append(example)
    if group:
        yield group
