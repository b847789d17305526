"""Build prompts as text, for servers whose tokenizer is not available here.

The text is split into pieces, and each distinct piece gets a number. The prompt builder uses these numbers instead of
token ids. So layouts, cuts and the choice of chunks are the same as for a local model. A piece is about as long as a
token, or shorter: in a sample of 190 texts, the median text had 9% more pieces than tokens, and 98% of the texts had at
most 19% more. So a prompt is usually within its token budget.

If the code spells out a marker of the model, the server reads it as the marker, because a prompt is one string.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from indexer.model import Chunk, Cursor
from policy.prompting.prompt import LAYOUTS, Budgets, Prompt, PromptBuilder, Role, Vocabulary

# An approximation of a token: up to eight letters with the space before them, an underscore, a digit, line breaks,
# spaces, or up to two punctuation characters.
_PIECE = re.compile(r" ?[^\W\d_]{1,8}|_|\d|\n+|[^\S\n]+|[^\w\s]{1,2}")


MAX_PIECES = 50_000  # the number of distinct pieces to keep between prompts; a prompt has a few thousand


@dataclass(frozen=True, slots=True)
class Family:
    """The prompt format of a family of models: the name of the layout, and the text of each marker."""

    layout: str
    markers: Mapping[Role, str]


_STARCODER: Mapping[Role, str] = {"prefix": "<fim_prefix>", "suffix": "<fim_suffix>", "middle": "<fim_middle>"}
_REPOFORMER: Mapping[Role, str] = {**_STARCODER, "eof": "<eof>", "cc": "<cc>"}
SUFFIX = "suffix"
FAMILIES: Mapping[str, Family] = {
    # The server has its own format, and gets the text before and after the cursor separately. The retrieved code comes
    # at the beginning of the text before the cursor.
    SUFFIX: Family("fim-psm", {"prefix": "", "suffix": "", "middle": ""}),
    "starcoder": Family("fim-psm", _STARCODER),
    "qwen": Family(
        "fim-psm-files",
        {
            "file_sep": "<|file_sep|>",  # ends a file; it comes first, because `stops` has only the first four markers
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
    """A prompt as text. `suffix` is the text after the cursor, or None if `text` includes it.

    `prompt` is the same prompt as tokens, which are the numbers of pieces of text here. The statistics, such as the
    number of tokens and the chunks that fit, come from it.
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
        """Forget all pieces except the markers.

        The prompt builder is replaced too, because its caches contain the numbers of the forgotten pieces.
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
        """The markers at which the server has to end a completion, because it may not know them as special tokens.

        There are at most four, which is the limit of the OpenAI API.
        """
        return [marker.strip() for marker in self._family.markers.values() if marker][:4]

    def decide(self, cursor: Cursor) -> TextPrompt:
        """Build the prompt for the decision."""
        self._make_room()
        return self._text_prompt(self._builder.decide(cursor))

    def generate(self, cursor: Cursor, chunks: Sequence[Chunk] | None) -> TextPrompt:
        """Build the prompt for a completion. If `chunks` is None, the prompt has no cross-file context."""
        self._make_room()
        return self._text_prompt(self._builder.build(cursor, chunks))

    def _make_room(self) -> None:
        if len(self._pieces) > MAX_PIECES:
            self._forget_pieces()

    def encode(self, text: str) -> list[int]:
        """Return the numbers of the pieces of `text`. This implements `policy.prompting.prompt.Tokenizer`."""
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
