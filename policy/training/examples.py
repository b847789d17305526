"""From a blank to what a model is trained on: token ids, and which of them count for which loss.

The prompt comes from `policy.prompting.prompt.PromptBuilder`, byte for byte what the server will send; to it the tokens
of the blank are added and the token that ends it. The blank is tokenised apart from its left context, as a server that
appends generated tokens sees it, so a half-typed word is split where the cursor stood.
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
    """A sequence; `middle` is where the blank's tokens begin in it, `left` to `left_end` is where L stands.

    `decision` is the index of the token after `<eof>`, 0 where the sequence holds none. `probes` are further places to
    decide at: how many tokens of the sequence are seen there, and the token that is right.
    """

    tokens: tuple[int, ...]
    middle: int
    left: int
    left_end: int
    decision: int = 0
    probes: tuple[tuple[int, int], ...] = ()


class ExampleBuilder:
    """Builds the examples of one corpus for one model, layout and budgets."""

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
        """What was cut out."""
        return self._source(blank)[blank.start : blank.end]

    def cursor(self, blank: Blank) -> Cursor:
        """The place of the blank, as a server would be asked about it."""
        text = self._source(blank)
        path = self.corpus / blank.repository / blank.path
        return Cursor(str(path), text[: blank.start], text[blank.end :], blank.language)

    def chunks(self, blank: Blank) -> list[Chunk]:
        """The retrieved chunks with their text, best first."""
        root = self.corpus / blank.repository
        found = []
        for hit in blank.hits:
            lines = self._lines(str(root / hit.path))[hit.start_line - 1 : hit.end_line]
            found.append(
                Chunk(str(root), hit.path, hit.start_line, hit.end_line, "\n".join(lines), "block", hit.header)
            )
        return found

    def build(self, blank: Blank, *, context: bool) -> Example | None:
        """The sequence with or without cross-file context; None for a blank that is too long to learn from."""
        cursor = self.cursor(blank)
        prompt = self.prompts.retrieve(cursor, self.chunks(blank)) if context else self.prompts.abstain(cursor)
        return self._complete(prompt, blank)

    def build_judged(self, blank: Blank, *, positive: bool) -> list[Example]:
        """What a labelled blank teaches: the decision, and the completion on the branch that it leads to.

        A negative is one sequence: `<eof>`, `<fim_middle>`, the blank. A positive is one where the layout's retrieved
        branch goes on behind the decision, and two where it does not: the prompt that ends with `<cc>`, and the
        retrieved prompt with the blank. L and R are cut alike in both, so their length tells nothing.
        """
        layout, ids = self.prompts.layout, self.base.vocabulary.ids
        cursor = self.cursor(blank)
        asked = self.prompts.decide(cursor).tokens
        example = self.build(blank, context=positive)
        if not positive or layout.retrieve[: len(layout.decide) + 1] == (*layout.decide, "cc"):
            return [replace(example, decision=len(asked))] if example else []
        decided = Example((*asked, ids["cc"]), len(asked) + 1, 0, 0, len(asked))
        return [decided, example] if example else [decided]

    def add_probes(self, example: Example, blank: Blank, probes: Sequence[Probe]) -> Example:
        """`example`, a plain one, with those probes that fall on a border of its tokens of L.

        Only layouts that decide right behind L can have any.
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
        """The sequence for a model that reads only what stands left: what the base is measured by."""
        return self._complete(self.left_only.abstain(self.cursor(blank)), blank)

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
    """Examples of like length together, each group of at most `tokens` when padded (but never empty)."""
    group: list[Example] = []
    for example in sorted(examples, key=lambda example: len(example.tokens)):
        if group and len(example.tokens) * (len(group) + 1) > tokens:
            yield group
            group = []
        group.append(example)
    if group:
        yield group
