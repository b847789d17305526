"""Build prompts as text, for servers whose tokenizer is not available here.

The prompt builder gets pieces of text in place of tokens, so layouts, cuts and the choice of chunks are the same as for
a local model. A piece is about as long as a token, or shorter. Of 190 texts, the median has 9% more pieces than tokens,
and 98% have at most 19% more. So a prompt is usually within its token budget.

Text that spells out a marker of the model cannot be told apart from the marker, because the server reads one string.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from indexer.model import Chunk, Cursor
from policy.prompting.prompt import LAYOUTS, Budgets, Prompt, PromptBuilder, Role, Vocabulary

# An approximation of tokens: up to eight letters with the space before them, a run of spaces, or two punctuation
# characters.
_PIECE = re.compile(r" ?[^\W\d_]{1,8}|_|\d|\n+|[^\S\n]+|[^\w\s]{1,2}")


MAX_PIECES = 50_000  # distinct pieces kept between prompts; a prompt has a few thousand


@dataclass(frozen=True, slots=True)
class Family:
    """How to prompt a family of models: the layout, and the text of each marker."""

    layout: str
    markers: Mapping[Role, str]


_STARCODER: Mapping[Role, str] = {"prefix": "<fim_prefix>", "suffix": "<fim_suffix>", "middle": "<fim_middle>"}
_REPOFORMER: Mapping[Role, str] = {**_STARCODER, "eof": "<eof>", "cc": "<cc>"}
SUFFIX = "suffix"
FAMILIES: Mapping[str, Family] = {
    # The server itself combines the text before and after the cursor. Retrieved code precedes the text before it.
    SUFFIX: Family("fim-psm", {"prefix": "", "suffix": "", "middle": ""}),
    "starcoder": Family("fim-psm", _STARCODER),
    "qwen": Family(
        "fim-psm-files",
        {
            "file_sep": "<|file_sep|>",  # first, so that it is one of the four `stops`: it ends a file
            "prefix": "<|fim_prefix|>",
            "suffix": "<|fim_suffix|>",
            "middle": "<|fim_middle|>",
            "repo": "<|repo_name|>",
        },
    ),
    "codellama": Family("fim-psm", {"prefix": "<PRE> ", "suffix": " <SUF>", "middle": " <MID>"}),
    "deepseek": Family("fim-psm", {"prefix": "<｜fim▁begin｜>", "suffix": "<｜fim▁hole｜>", "middle": "<｜fim▁end｜>"}),
    "codestral": Family("fim-spm-middle", {"prefix": "", "suffix": "[SUFFIX]", "middle": "[PREFIX]"}),
    "repoformer": Family("repoformer", _REPOFORMER),
    "repoformer-spm": Family("repoformer-spm", _REPOFORMER),
    "repoformer-spm-tail": Family("repoformer-spm-tail", _REPOFORMER),
}


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """A prompt as text. `suffix` is None if `text` contains the suffix.

    `prompt` says what was trimmed or left out.
    """

    text: str
    suffix: str | None
    prompt: Prompt


class TextPrompts:
    """Builds prompts for a family of models (a key of `FAMILIES`)."""

    def __init__(self, family: str, budgets: Budgets) -> None:
        self.budgets = budgets
        self._family = FAMILIES[family]
        self._separate_suffix = family == SUFFIX
        self._roles: Mapping[Role, int] = {role: number for number, role in enumerate(self._family.markers)}
        self._forget_pieces()

    def _forget_pieces(self) -> None:
        """Forget all pieces and number new ones from the beginning.

        The builder is also replaced, because its caches have the old numbers.
        """
        self._pieces: list[str] = list(self._family.markers.values())
        self._ids: dict[str, int] = {}
        layout = LAYOUTS[self._family.layout]
        self._builder = PromptBuilder(layout, Vocabulary(self._roles), self, self.budgets, heal=False)

    @property
    def selective(self) -> bool:
        """Whether models of this family decide whether to retrieve."""
        return self._builder.layout.selective

    @property
    def stops(self) -> list[str]:
        """The texts that end a completion, in case the server does not know them.

        There are at most four, which is the limit of the OpenAI API.
        """
        return [marker.strip() for marker in self._family.markers.values() if marker][:4]

    def decide(self, cursor: Cursor) -> TextPrompt:
        """Build the prompt for the decision."""
        self._make_room()
        return self._text_prompt(self._builder.decide(cursor))

    def generate(self, cursor: Cursor, chunks: Sequence[Chunk] | None) -> TextPrompt:
        """Build the prompt for a completion. `chunks` None means without cross-file context."""
        self._make_room()
        return self._text_prompt(
            self._builder.without_context(cursor) if chunks is None else self._builder.with_context(cursor, chunks)
        )

    def _make_room(self) -> None:
        if len(self._pieces) > MAX_PIECES:
            self._forget_pieces()

    def encode(self, text: str) -> list[int]:
        """Return numbers that stand for the pieces of `text` (the interface `policy.prompting.prompt.Tokenizer`)."""
        numbers = []
        for piece in _PIECE.findall(text):
            if (number := self._ids.get(piece)) is None:
                number = self._ids[piece] = len(self._pieces)
                self._pieces.append(piece)
            numbers.append(number)
        return numbers

    def _text_prompt(self, prompt: Prompt) -> TextPrompt:
        if not self._separate_suffix:
            return TextPrompt(self._text(prompt.tokens), None, prompt)
        border = prompt.tokens.index(self._roles["suffix"])
        return TextPrompt(self._text(prompt.tokens[:border]), self._text(prompt.tokens[border:]), prompt)

    def _text(self, tokens: Sequence[int]) -> str:
        return "".join(self._pieces[token] for token in tokens)
