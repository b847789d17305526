"""Prompts as text, for servers that keep their tokenizer to themselves.

The one prompt builder is told what a tokenizer would tell it, with pieces of text in place of tokens, so layouts,
cuts and the choice of chunks are the same here as everywhere. The pieces are about as long as a tokenizer makes them,
rather shorter (9% more of them at the median of 190 texts, 19% at most but for the last fiftieth): a budget is met
within that, on the safe side.

Text that spells out one of the model's markers is not kept apart from the marker, since the server reads one string.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from indexer.model import Chunk, Cursor
from policy.prompting.prompt import LAYOUTS, Budgets, Prompt, PromptBuilder, Role, Vocabulary

# A word's first letters with the blank before it, a run of blanks, or two signs: what tokenizers make of code, roughly.
_PIECE = re.compile(r" ?[^\W\d_]{1,8}|_|\d|\n+|[^\S\n]+|[^\w\s]{1,2}")


MOST_PIECES = 50_000  # distinct ones that are kept from prompt to prompt; a prompt has a few thousand


@dataclass(frozen=True, slots=True)
class Family:
    """How models of one family are prompted: a layout, and what their markers are called."""

    layout: str
    markers: Mapping[Role, str]


_STARCODER: Mapping[Role, str] = {"prefix": "<fim_prefix>", "suffix": "<fim_suffix>", "middle": "<fim_middle>"}
_REPOFORMER: Mapping[Role, str] = {**_STARCODER, "eof": "<eof>", "cc": "<cc>"}
SUFFIX = "suffix"
FAMILIES: Mapping[str, Family] = {
    # The server puts the two sides together itself; retrieved code stands before the left one.
    SUFFIX: Family("fim-psm", {"prefix": "", "suffix": "", "middle": ""}),
    "starcoder": Family("fim-psm", _STARCODER),
    "qwen": Family(
        "fim-psm-files",
        {
            "file_sep": "<|file_sep|>",  # first: with it such a model ends a file
            "prefix": "<|fim_prefix|>",
            "suffix": "<|fim_suffix|>",
            "middle": "<|fim_middle|>",
            "repo": "<|repo_name|>",
        },
    ),
    "codellama": Family("fim-psm", {"prefix": "<PRE> ", "suffix": " <SUF>", "middle": " <MID>"}),
    "deepseek": Family("fim-psm", {"prefix": "<｜fim▁begin｜>", "suffix": "<｜fim▁hole｜>", "middle": "<｜fim▁end｜>"}),
    "codestral": Family("fim-spm", {"prefix": "", "suffix": "[SUFFIX]", "middle": "[PREFIX]"}),
    "repoformer": Family("repoformer", _REPOFORMER),
    "repoformer-spm": Family("repoformer-spm", _REPOFORMER),
    "repoformer-spm-tail": Family("repoformer-spm-tail", _REPOFORMER),
}


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """A prompt as text. `suffix` is None where `text` contains it. `prompt` says what was trimmed or left out."""

    text: str
    suffix: str | None
    prompt: Prompt


class TextPrompts:
    """Lays out prompts for a family of models (a name of `FAMILIES`)."""

    def __init__(self, family: str, budgets: Budgets) -> None:
        self.budgets = budgets
        self._family = FAMILIES[family]
        self._apart = family == SUFFIX
        self._roles: Mapping[Role, int] = {role: number for number, role in enumerate(self._family.markers)}
        self._forget_pieces()

    def _forget_pieces(self) -> None:
        """Number pieces from the beginning; the builder's caches hold the old numbers, so it begins again, too."""
        self._pieces: list[str] = list(self._family.markers.values())
        self._ids: dict[str, int] = {}
        layout = LAYOUTS[self._family.layout]
        self._builder = PromptBuilder(layout, Vocabulary(self._roles), self, self.budgets, heal=False)

    @property
    def selective(self) -> bool:
        """Whether models of this family decide."""
        return self._builder.layout.selective

    @property
    def stops(self) -> list[str]:
        """What ends a completion although the server may not know that it does; at most four, as servers want."""
        return [marker.strip() for marker in self._family.markers.values() if marker][:4]

    def decide(self, cursor: Cursor) -> TextPrompt:
        """What is read before deciding."""
        self._make_room()
        return self._text_prompt(self._builder.decide(cursor))

    def generate(self, cursor: Cursor, chunks: Sequence[Chunk] | None) -> TextPrompt:
        """What is completed, without (None) or with cross-file context."""
        self._make_room()
        return self._text_prompt(
            self._builder.abstain(cursor) if chunks is None else self._builder.retrieve(cursor, chunks)
        )

    def _make_room(self) -> None:
        if len(self._pieces) > MOST_PIECES:
            self._forget_pieces()

    def encode(self, text: str) -> list[int]:
        """Numbers for the pieces of `text` (`policy.prompting.prompt.Tokenizer`)."""
        numbers = []
        for piece in _PIECE.findall(text):
            if (number := self._ids.get(piece)) is None:
                number = self._ids[piece] = len(self._pieces)
                self._pieces.append(piece)
            numbers.append(number)
        return numbers

    def _text_prompt(self, prompt: Prompt) -> TextPrompt:
        if not self._apart:
            return TextPrompt(self._text(prompt.tokens), None, prompt)
        border = prompt.tokens.index(self._roles["suffix"])
        return TextPrompt(self._text(prompt.tokens[:border]), self._text(prompt.tokens[border:]), prompt)

    def _text(self, tokens: Sequence[int]) -> str:
        return "".join(self._pieces[token] for token in tokens)
