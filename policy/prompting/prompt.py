"""The prompt builder, which makes the exact sequence of tokens that the model reads.

Serving, labeling, training and evaluation all call `PromptBuilder`, so the format in the editor is exactly the format
of the training. A *layout* lists the parts of a prompt: markers (special tokens) and fields (text). The main fields
are L, the text before the cursor, R, the text after it, and CC, the cross-file context (the retrieved chunks). A layout
has three sequences: the prompt for the decision, the prompt after an abstention, and the prompt after a retrieval.

A keystroke must change as few tokens as possible, so that most of the KV cache stays valid. Therefore:

- Suffix-first layouts put L, or at least its last lines, at the end of the prompt, so a keystroke only appends tokens.
- L begins at a line whose number is a multiple of `Budgets.step_lines`. So L begins at the same line for many
  keystrokes, and its tokens stay in the cache. The cost is that L has up to `step_lines` fewer lines. Some layouts
  split L into HEAD and TAIL, which have different places in the prompt. TAIL also begins at a line whose number is a
  multiple of `step_lines`.
- The budgets of L and R are the same with and without CC. This also prevents the length of the prompt from revealing
  the training label (paper, section 4.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from pathlib import PurePath
from typing import Literal, Protocol

from indexer.languages import LANGUAGES, Language
from indexer.model import Chunk, Cursor, shown_path
from policy.prompting.healing import split_last_word

Role = Literal["bos", "prefix", "suffix", "middle", "eof", "cc", "repo", "file_sep"]
Field = Literal["L", "HEAD", "TAIL", "R", "CC", "ANCHOR", "REPO", "PATH"]
Part = Role | Field
ContextStyle = Literal["commented", "plain", "files"]

ROLES: tuple[Role, ...] = ("bos", "prefix", "suffix", "middle", "eof", "cc", "repo", "file_sep")
OPTIONAL: frozenset[Part] = frozenset({"bos"})  # markers that a prompt omits if the model has no such token
ANCHOR_LINES = 2  # the number of lines in the field ANCHOR, which repeats the end of L
LINE_GRAIN = 32  # tokens to which the length of the cursor's line is rounded up, so that a key rarely moves L's start
TAIL_LINES = 4  # the minimum number of lines in the field TAIL, including the cursor's line
# The number of characters that few tokens exceed. The builder assumes that n tokens cover at most 16n characters.
MAX_TOKEN_LENGTH = 16
CONTEXT_PREAMBLE = "Here are some relevant code fragments from other files of the repo:"
CHUNK_PREAMBLE = "the below code fragment can be found in:"
_UNKNOWN = Language("", (), "# ")


class Tokenizer(Protocol):
    """Turns text into token ids, without a token for the beginning of the text, and without special tokens."""

    def encode(self, text: str) -> list[int]:
        """Return the tokens of `text`. If `text` spells out a special token, that part becomes ordinary tokens."""
        ...


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The token id of each marker that a model has."""

    ids: Mapping[Role, int]

    def missing(self, layout: Layout) -> tuple[Part, ...]:
        """Return the markers that `layout` requires and this model lacks. Those in `OPTIONAL` are not required."""
        parts = {*layout.decide, *layout.without_context, *layout.with_context} - set(OPTIONAL)
        return tuple(part for part in ROLES if part in parts and part not in self.ids)


@dataclass(frozen=True, slots=True)
class Layout:
    """The order of the parts of a prompt.

    `decide` is the prompt for the decision: the next token that the model predicts is the decision. `decide` is empty
    for models that do not decide. `without_context` and `with_context` are complete prompts, up to the first generated
    token. `without_context` begins with `decide`, so after an abstention the model continues from the same KV cache.

    `heals` says whether to use token healing (`policy.prompting.healing`). Models that were trained on split words,
    such as our Repoformers, do not need healing.
    """

    name: str
    decide: tuple[Part, ...]
    without_context: tuple[Part, ...]
    with_context: tuple[Part, ...]
    context_style: ContextStyle
    heals: bool = False

    @property
    def selective(self) -> bool:
        """Whether a model with this layout decides when to retrieve."""
        return bool(self.decide)


def _layout(
    name: str,
    decide: str,
    without_context: str,
    with_context: str,
    context_style: ContextStyle,
    *,
    heals: bool = False,
) -> Layout:
    def parts(row: str) -> tuple[Part, ...]:
        return tuple(row.split())  # type: ignore[arg-type]

    return Layout(name, parts(decide), parts(without_context), parts(with_context), context_style, heals)


LAYOUTS: Mapping[str, Layout] = {
    row.name: row
    for row in (
        # The paper's order (section 3.2): L, R, the decision, then CC.
        _layout(
            "repoformer",
            "prefix L suffix R eof",
            "prefix L suffix R eof middle",
            "prefix L suffix R eof cc CC middle",
            "commented",
        ),
        # The layout of our models, with the suffix first. CC comes before L, so the cache of the retrieved branch stays
        # valid after a keystroke as long as the chunks do not change. Both branches begin with the same tokens,
        # `<fim_suffix> R`.
        _layout(
            "repoformer-spm",
            "suffix R prefix L eof",
            "suffix R prefix L eof middle",
            "suffix R cc CC prefix L eof middle",
            "plain",
        ),
        # Like `repoformer-spm`, but with CC after the decision. The retrieved branch continues the prompt for the
        # decision, but CC then separates L from the generated text. So the last lines of L are repeated (ANCHOR).
        _layout(
            "repoformer-spm-tail",
            "suffix R prefix L eof",
            "suffix R prefix L eof middle",
            "suffix R prefix L eof cc CC middle ANCHOR",
            "plain",
        ),
        # For any GGUF with fill-in-the-middle tokens. PSM is the order prefix, suffix, middle. SPM is the order suffix,
        # prefix, middle.
        _layout(
            "fim-psm",
            "",
            "bos prefix L suffix R middle",
            "bos prefix CC L suffix R middle",
            "commented",
            heals=True,
        ),
        _layout(
            "fim-psm-files",
            "",
            "bos prefix L suffix R middle",
            "bos repo REPO CC file_sep PATH prefix L suffix R middle",
            "files",
            heals=True,
        ),
        # Suffix first, so that a keystroke only appends tokens. TAIL, the last lines of L, follows the marker `middle`,
        # as if the model had generated TAIL. This is the variant of SPM in Bavarian et al. 2022, section 3, with the
        # markers of models that were trained prefix-first. CC and the other lines of L follow the marker `prefix`,
        # because such models rarely read an empty prefix in their training.
        _layout(
            "fim-spm",
            "",
            "bos prefix HEAD suffix R middle TAIL",
            "bos prefix CC HEAD suffix R middle TAIL",
            "plain",
            heals=True,
        ),
        # Alternatives, for measurements and for models with other markers (`docs/experiments.md`, entry 32).
        _layout(
            "fim-spm-middle",
            "",
            "bos prefix suffix R middle L",
            "bos prefix suffix R middle CC L",
            "plain",
            heals=True,
        ),
        _layout(
            "fim-spm-commented",
            "",
            "bos prefix suffix R middle L",
            "bos prefix suffix R middle CC L",
            "commented",
            heals=True,
        ),
        _layout(
            "fim-spm-behind",
            "",
            "bos prefix suffix R middle L",
            "bos prefix suffix R CC middle L",
            "plain",
            heals=True,
        ),
        _layout(
            "fim-spm-files",
            "",
            "bos prefix suffix R middle L",
            "bos repo REPO CC file_sep PATH prefix suffix R middle L",
            "files",
            heals=True,
        ),
        # For a language model without fill-in-the-middle tokens, which reads only the text before the cursor.
        _layout("prefix-only", "", "bos L", "bos CC L", "commented", heals=True),
    )
}


@dataclass(frozen=True, slots=True)
class Budgets:
    """The maximum numbers of tokens of L, R and CC. The defaults are the paper's (section 5.1).

    `step_lines` is the number of lines by which the beginning of L moves at a time. With a larger step, the cache stays
    valid longer. With a smaller step, L has more text.
    """

    left: int = 1024
    right: int = 512
    context: int = 512
    step_lines: int = 8

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object]) -> Budgets:
        """Return the budgets in a model's metadata (`repoformer.budget.*`)."""
        values = {each.name: str(metadata.get(f"repoformer.budget.{each.name}", "")) for each in fields(cls)}
        return cls(**{name: int(value) for name, value in values.items() if value.isdecimal()})

    @property
    def tokens(self) -> int:
        """The sum of the three budgets."""
        return self.left + self.right + self.context

    def divided(self, parts: int) -> Budgets:
        """Return the budgets of a short prompt (`policy.engine.worker.prompts`): these, divided by `parts`."""
        return self.fit(self.tokens // parts)

    def fit(self, available: int) -> Budgets:
        """Return these budgets, reduced in proportion if their sum is more than `available` tokens."""
        if self.tokens <= available:
            return self
        share = max(available, 0) / self.tokens
        return replace(
            self,
            left=int(self.left * share),
            right=int(self.right * share),
            context=int(self.context * share),
        )


@dataclass(frozen=True, slots=True)
class Prompt:
    """A sequence of tokens for the model, and a description of the fields of its layout.

    `tokens` omits the last word of L, `healed_text`, because the model generates this word again, possibly with other
    tokens than `healed`. `left_tokens`, `right_tokens` and `context_tokens` are the numbers of tokens of L (including
    `healed`), R and CC. `left_trimmed` and `right_trimmed` say whether L and R lack a part of the file. `chunks` are
    the chunks in CC, in order. The last one may be cut. `private` says whether the evaluated prompt must not be saved
    to disk.
    """

    tokens: tuple[int, ...]
    healed: tuple[int, ...] = ()
    healed_text: str = ""
    left_tokens: int = 0
    right_tokens: int = 0
    context_tokens: int = 0
    left_trimmed: bool = False
    right_trimmed: bool = False
    chunks: tuple[Chunk, ...] = ()
    private: bool = False

    @property
    def whole(self) -> tuple[int, ...]:
        """The tokens of the prompt, including the last word of L."""
        return (*self.tokens, *self.healed)


class PromptBuilder:
    """Builds prompts for one model, given its layout, vocabulary, tokenizer and token budgets.

    If `heal` is false, the last word stays in the prompt, for a generator that cannot restrict the generated tokens to
    those that agree with the word. Raises `ValueError` if the vocabulary lacks a marker of the layout.
    """

    def __init__(
        self,
        layout: Layout,
        vocabulary: Vocabulary,
        tokenizer: Tokenizer,
        budgets: Budgets | None = None,
        *,
        heal: bool = True,
    ) -> None:
        if missing := vocabulary.missing(layout):
            raise ValueError(f"layout {layout.name!r} needs tokens that this model lacks: {', '.join(missing)}")
        self.layout = layout
        self.vocabulary = vocabulary
        self.budgets = budgets or Budgets()
        self._heals = heal and layout.heals
        self._encode = tokenizer.encode
        # Cached, because after a keystroke all lines but one are the same as in the previous request.
        self._line_tokens: Callable[[str], int] = lru_cache(maxsize=16_384)(lambda line: len(self._encode(line)))
        self._encode_cached: Callable[[str], tuple[int, ...]] = lru_cache(maxsize=64)(
            lambda text: tuple(self._encode(text))
        )

    def decide(self, cursor: Cursor) -> Prompt:
        """Build the prompt for the decision. Raises `ValueError` if the layout has no decision."""
        if not self.layout.selective:
            raise ValueError(f"layout {self.layout.name!r} has no decision")
        return self._lay_out(self.layout.decide, cursor, ())

    def build(self, cursor: Cursor, chunks: Sequence[Chunk] | None) -> Prompt:
        """Build the prompt with `chunks`, or, if `chunks` is None, the prompt without cross-file context."""
        return self.without_context(cursor) if chunks is None else self.with_context(cursor, chunks)

    def without_context(self, cursor: Cursor) -> Prompt:
        """Build the prompt without cross-file context."""
        return self._lay_out(self.layout.without_context, cursor, ())

    def with_context(self, cursor: Cursor, chunks: Sequence[Chunk]) -> Prompt:
        """Build the prompt with `chunks` (best first) as cross-file context."""
        return self._lay_out(self.layout.with_context, cursor, chunks)

    def _lay_out(self, parts: tuple[Part, ...], cursor: Cursor, chunks: Sequence[Chunk]) -> Prompt:
        markers: dict[Part, int] = {role: token for role, token in self.vocabulary.ids.items()}  # noqa: C416
        whole, last = split_last_word(cursor.prefix) if self._heals else (cursor.prefix, "")
        healed = self._encode_cached(last) if last else ()
        head, left, left_trimmed = self._left(cursor.prefix, whole, len(healed), split="TAIL" in parts)
        right, right_trimmed = self._right(cursor.suffix) if "R" in parts else ((), False)
        context, used = self._context(cursor, chunks) if "CC" in parts else ((), ())
        fields: dict[Part, Callable[[], Sequence[int]]] = {
            "L": lambda: left,
            "HEAD": lambda: head,
            "TAIL": lambda: left,
            "R": lambda: right,
            "CC": lambda: context,
            "ANCHOR": lambda: self._encode_cached(anchor_of(cursor.prefix)),
            "REPO": lambda: self._encode_cached(f"{shown_path(PurePath(_root(chunks)).name)}\n"),
            "PATH": lambda: self._encode_cached(f"{shown_path(_relative(cursor.path, _root(chunks)))}\n"),
        }
        tokens: list[int] = []
        for part in parts:
            if part in fields:
                tokens.extend(fields[part]())
            elif part in markers:
                tokens.append(markers[part])
        if not tokens:  # L is empty and the model has no markers, but a prompt needs at least one token
            tokens.extend(self._encode_cached("\n"))
        return Prompt(
            tuple(tokens),
            healed,
            last,
            len(head) + len(left) + len(healed),
            len(right),
            len(context),
            left_trimmed,
            right_trimmed,
            used,
            private=bool(cursor.private) or not cursor.path,  # a buffer without a file cannot be opened again
        )

    def _left(
        self, prefix: str, whole: str, healed: int, *, split: bool
    ) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
        """Return the tokens of HEAD and of TAIL, and whether L lacks a part of `prefix`.

        `whole` is `prefix` without the healed word, which has `healed` tokens. This number changes with each key, so
        the lines of L do not depend on it. If `split` is false, HEAD is empty and TAIL is L.
        """
        budget, step = self.budgets.left, self.budgets.step_lines
        start = left_cut(prefix, budget, step, self._line_tokens)
        middle = max(start, tail_cut(prefix, step)) if split else start
        head, tail = self._encode_cached(whole[start:middle]), self._encode_cached(whole[middle:])
        excess = max(0, len(head) + len(tail) + healed - budget)
        kept = head[excess:], tail[max(0, excess - len(head)) :]
        return *kept, start > 0 or excess > 0

    def _right(self, suffix: str) -> tuple[tuple[int, ...], bool]:
        head = suffix[: self.budgets.right * MAX_TOKEN_LENGTH]
        tokens = self._encode_cached(head)
        kept = tokens[: self.budgets.right]
        return kept, len(head) < len(suffix) or len(kept) < len(tokens)

    def _context(self, cursor: Cursor, chunks: Sequence[Chunk]) -> tuple[tuple[int, ...], tuple[Chunk, ...]]:
        """Return the tokens of CC, and the chunks in it, best first.

        A chunk that exceeds the budget is cut at the end of a statement, and no chunk follows it.
        """
        language = LANGUAGES.get(cursor.language, _UNKNOWN)
        style = _STYLES[self.layout.context_style]
        write = partial(self._write, style, language)
        tokens = list(self._encode_cached(style.head(language)))
        used: list[Chunk] = []
        for chunk in chunks:
            room = self.budgets.context - len(tokens)
            if len(piece := write(chunk)) <= room:
                tokens.extend(piece)
                used.append(chunk)
                continue
            for head in _heads(chunk):
                if len(piece := write(head)) <= room:
                    tokens.extend(piece)
                    used.append(head)
                    break
            break
        return (tuple(tokens), tuple(used)) if used else ((), ())

    def _write(self, style: _Style, language: Language, chunk: Chunk) -> tuple[int, ...]:
        # Each chunk is tokenized separately, so its tokens do not depend on its position and can be cached.
        separator = (self.vocabulary.ids["file_sep"],) if style.separated else ()
        return separator + self._encode_cached(style.chunk(language, chunk))


def left_cut(prefix: str, budget: int, step_lines: int, count: Callable[[str], int]) -> int:
    """Return the offset in `prefix` where L begins. `count` returns the number of tokens of a line.

    L begins at the first line whose number is a multiple of the step and from which the text fits into `budget` tokens.
    The offset depends only on the text, so no state is kept between requests. While the user appends lines, the offset
    moves only once for each step. The step is `step_lines`, or a lower power of two if `step_lines` is more than half
    of the lines that fit. The offset does not move while the user types or deletes in a line, unless the line becomes
    long: the cursor's line counts as a multiple of `LINE_GRAIN` tokens. If the cursor's line alone exceeds the budget,
    L is that whole line, and the caller cuts the line at a token.
    """
    window = prefix[max(0, len(prefix) - budget * MAX_TOKEN_LENGTH) :]
    lines = _split_lines(window)
    own, grain = count(lines[-1]), max(1, min(LINE_GRAIN, budget // 8))
    rounded = -(-max(own, 1) // grain) * grain
    spent = rounded if rounded <= budget else own
    taken = int(spent <= budget)
    for line in reversed(lines[:-1] if taken else []):
        spent += count(line)
        if spent > budget:
            break
        taken += 1
    if taken == len(lines):
        if len(window) == len(prefix):
            return 0
        taken -= 1  # the window may begin inside its first line, so this line does not count
    if taken <= 0:
        return len(prefix) - len(lines[-1])
    step = min(step_lines, 1 << max(0, (taken // 2).bit_length() - 1))
    first = prefix.count("\n") + 1 - taken
    skip = -first % step
    return len(prefix) - sum(map(len, lines[len(lines) - taken + skip :]))


def tail_cut(prefix: str, step_lines: int) -> int:
    """Return the offset in `prefix` where TAIL begins. It is 0 if TAIL is the whole prefix.

    TAIL begins at a line whose number is a multiple of `step_lines`. It is the last such line from which at least
    `TAIL_LINES` lines follow, including the line itself.
    """
    lines = _split_lines(prefix)
    before = (len(lines) - TAIL_LINES) // step_lines * step_lines
    return sum(map(len, lines[:before])) if before > 0 else 0


def anchor_of(prefix: str) -> str:
    """Return the last `ANCHOR_LINES` lines of `prefix`, the cursor's line included."""
    return "".join(_split_lines(prefix)[-ANCHOR_LINES:])


def _split_lines(text: str) -> list[str]:
    """Return the lines of `text` with their `\\n`. The last one is the cursor's line, without `\\n` and maybe empty."""
    *whole, last = text.split("\n")
    return [line + "\n" for line in whole] + [last]


def _heads(chunk: Chunk) -> Iterator[Chunk]:
    """Yield the beginnings of `chunk` that end with a complete statement according to the indentation, longest first.

    A beginning of fewer than three lines is not yielded, because it is not worth the tokens of its header.
    """
    lines = chunk.text.splitlines(keepends=True)
    for count in range(len(lines) - 1, 2, -1):
        last, following = lines[count - 1], lines[count]
        continues = _indent(following) > _indent(last) or following.lstrip()[:1] in tuple(")]}")
        if last.strip() and (not following.strip() or not continues):
            yield replace(chunk, text="".join(lines[:count]), end_line=chunk.start_line + count - 1)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _root(chunks: Sequence[Chunk]) -> str:
    return chunks[0].root if chunks else ""


def _relative(path: str, root: str) -> str:
    """Return `path` relative to `root`, or only the file's name if the file is outside of `root`."""
    where = PurePath(path)
    return where.relative_to(root).as_posix() if root and where.is_relative_to(root) else where.name


class _Style(Protocol):
    """A format for chunks. `separated` says whether each chunk begins with the model's file separator.

    `head` returns the text before the first chunk, and `chunk` the text of one chunk.
    """

    separated: bool

    def head(self, language: Language) -> str: ...

    def chunk(self, language: Language, chunk: Chunk) -> str: ...


class _Commented:
    """The paper's format (section 3.2): every line is a comment, so that any model recognizes the chunks as context."""

    separated = False

    def head(self, language: Language) -> str:
        return f"\n\n{language.commented(CONTEXT_PREAMBLE)}\n\n"

    def chunk(self, language: Language, chunk: Chunk) -> str:
        lines = (CHUNK_PREAMBLE, shown_path(chunk.path), *_body(chunk).splitlines())
        return "\n".join(map(language.commented, lines)) + "\n\n"


class _Plain:
    """The path as a comment, then the code without comment marks.

    This format needs half the tokens of `_Commented`, and the model can copy code token by token.
    """

    separated = False

    def head(self, language: Language) -> str:
        return ""

    def chunk(self, language: Language, chunk: Chunk) -> str:
        return f"{language.commented(shown_path(chunk.path))}\n{_body(chunk).rstrip()}\n\n"


class _Files:
    """The format for repository-level fill-in-the-middle (Qwen2.5-Coder, StarCoder2): each chunk is a small file."""

    separated = True

    def head(self, language: Language) -> str:
        return ""

    def chunk(self, language: Language, chunk: Chunk) -> str:
        return f"{shown_path(chunk.path)}\n{_body(chunk).rstrip()}\n"


def _body(chunk: Chunk) -> str:
    return f"{chunk.header}\n{chunk.text}" if chunk.header else chunk.text


_STYLES: Mapping[ContextStyle, _Style] = {"commented": _Commented(), "plain": _Plain(), "files": _Files()}
