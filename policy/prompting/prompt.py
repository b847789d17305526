"""The one prompt builder: what the model reads, token by token.

Serving, labelling, training and evaluation all call `PromptBuilder`, so a model meets in the editor exactly the bytes
it was trained on. A *layout* is a small table of parts: markers (special tokens by role) and slots (text). Three
sequences matter: what is read before deciding, what follows an abstention, and what follows a retrieval.

The trade-off that shapes it is the KV cache. A keystroke must change as few tokens as possible, so

- suffix-first layouts put L last: a keystroke then only appends;
- L is cut at a line whose number is a multiple of `Budgets.step_lines`, so that the cut, and with it everything the
  cache knows of L, stays put while a person types; at most that many lines of left context are given up for it;
- the budgets of L and R never depend on whether cross-file context (CC) is there, which also keeps the length of the
  prompt from giving the training label away (paper, section 4.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import PurePath
from typing import Literal, Protocol

from indexer.languages import LANGUAGES
from indexer.model import Chunk, Cursor, shown_path
from policy.prompting.healing import split_last_word

Role = Literal["bos", "prefix", "suffix", "middle", "eof", "cc", "repo", "file_sep"]
Slot = Literal["L", "R", "CC", "ANCHOR", "REPO", "PATH"]
Part = Role | Slot
ContextStyle = Literal["commented", "plain", "files"]

ROLES: tuple[Role, ...] = ("bos", "prefix", "suffix", "middle", "eof", "cc", "repo", "file_sep")
OPTIONAL: frozenset[Part] = frozenset({"bos"})  # left out where the model has none
ANCHOR_LINES = 2
LONGEST_TOKEN = 16  # characters; hardly any token has more, so no budget reaches further than so many a token
CONTEXT_PREAMBLE = "Here are some relevant code fragments from other files of the repo:"
CHUNK_PREAMBLE = "the below code fragment can be found in:"


class Tokenizer(Protocol):
    """Text to token ids, without BOS and without recognising special tokens in the text."""

    def encode(self, text: str) -> list[int]:
        """Return the tokens of `text`; special tokens spelled out in it stay ordinary text."""
        ...


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The ids a model uses for the roles of a layout. A role that the model does not have is absent."""

    ids: Mapping[Role, int]

    def missing(self, layout: Layout) -> tuple[Part, ...]:
        """Markers of `layout` that this model has no token for."""
        parts = {*layout.decide, *layout.abstain, *layout.retrieve} - set(OPTIONAL)
        return tuple(part for part in ROLES if part in parts and part not in self.ids)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the parts of a prompt stand.

    `decide` is read up to the position whose next token is the decision; it is empty for models that make none.
    `heals`: the text before the cursor may end inside a token, so its last word is left for the model to write again
    (`policy.prompting.healing`). Models that were trained on split words, as ours was, do without.
    `abstain` and `retrieve` are whole sequences, up to the first generated token. That `abstain` begins with `decide`
    is what makes the decision free: the KV cache simply goes on.
    """

    name: str
    decide: tuple[Part, ...]
    abstain: tuple[Part, ...]
    retrieve: tuple[Part, ...]
    context_style: ContextStyle
    heals: bool = False

    @property
    def selective(self) -> bool:
        """Whether a model of this layout says itself when to retrieve."""
        return bool(self.decide)


def _layout(
    name: str,
    decide: str,
    abstain: str,
    retrieve: str,
    context_style: ContextStyle,
    *,
    heals: bool = False,
) -> Layout:
    def parts(row: str) -> tuple[Part, ...]:
        return tuple(row.split())  # type: ignore[arg-type]

    return Layout(name, parts(decide), parts(abstain), parts(retrieve), context_style, heals)


LAYOUTS: Mapping[str, Layout] = {
    row.name: row
    for row in (
        # The paper's order (section 3.2): CC inside the right context, after the decision.
        _layout(
            "repoformer",
            "prefix L suffix R eof",
            "prefix L suffix R eof middle",
            "prefix L suffix R eof cc CC middle",
            "commented",
        ),
        # Ours: suffix first. With CC at the head, the retrieved branch is a sequence of its own that shares
        # `<fim_suffix> R` with the plain one and survives keystrokes for as long as the chunks stay the same.
        _layout(
            "repoformer-spm",
            "suffix R prefix L eof",
            "suffix R prefix L eof middle",
            "suffix R cc CC prefix L eof middle",
            "plain",
        ),
        # The same with CC behind the decision: one sequence, but the model must find its way back to the cursor,
        # for which the last lines of L stand once more before the generated text.
        _layout(
            "repoformer-spm-tail",
            "suffix R prefix L eof",
            "suffix R prefix L eof middle",
            "suffix R prefix L eof cc CC middle ANCHOR",
            "plain",
        ),
        # Any GGUF with fill-in-the-middle tokens.
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
        # The suffix first, so that a keystroke only appends: the prefix is the beginning of the middle (SPM in
        # Bavarian et al. 2022, section 3; here with the markers of models that were trained prefix-first).
        _layout(
            "fim-spm",
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
        # A plain language model: it reads only the text left of the cursor.
        _layout("prefix-only", "", "bos L", "bos CC L", "commented", heals=True),
    )
}


@dataclass(frozen=True, slots=True)
class Budgets:
    """Token budgets of the slots; the defaults are the paper's (section 5.1).

    `step_lines` is the grain of the cut of L: larger keeps the cache longer, smaller keeps more left context.
    """

    left: int = 1024
    right: int = 512
    context: int = 512
    step_lines: int = 8

    @property
    def tokens(self) -> int:
        """Of all slots together."""
        return self.left + self.right + self.context

    def fit(self, available: int) -> Budgets:
        """Shrink all three in proportion so that a prompt fits `available` tokens."""
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
    """A sequence for the model and what became of each slot.

    `healed` are the tokens of the last word of L, which is not in `tokens`: the generation writes it again, as
    `healed_text`, perhaps in other tokens. `left_tokens` counts them. `chunks` are those that made it into CC, in
    order; the last of them may be cut.
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

    @property
    def whole(self) -> tuple[int, ...]:
        """The prompt with the tokens of the healed word."""
        return (*self.tokens, *self.healed)


class PromptBuilder:
    """Lays out prompts for one model: its layout, its vocabulary, its tokenizer, the budgets.

    `heal` off keeps the last word in the prompt, for a generator that cannot be limited to tokens that agree with it.
    Raises `ValueError` when the vocabulary lacks a marker that the layout needs.
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
            raise ValueError(f"layout {layout.name!r} needs tokens this model lacks: {', '.join(missing)}")
        self.layout = layout
        self.vocabulary = vocabulary
        self.budgets = budgets or Budgets()
        self._heals = heal and layout.heals
        self._encode = tokenizer.encode
        # Lines repeat from keystroke to keystroke: all but one of them are the ones of the last request.
        self._line_tokens: Callable[[str], int] = lru_cache(maxsize=16_384)(lambda line: len(self._encode(line)))
        self._encode_cached: Callable[[str], tuple[int, ...]] = lru_cache(maxsize=64)(
            lambda text: tuple(self._encode(text))
        )

    def decide(self, cursor: Cursor) -> Prompt:
        """The sequence whose next token is the decision. Raises `ValueError` for layouts that make none."""
        if not self.layout.selective:
            raise ValueError(f"layout {self.layout.name!r} makes no decision")
        return self._lay_out(self.layout.decide, cursor, ())

    def abstain(self, cursor: Cursor) -> Prompt:
        """The sequence to generate from without cross-file context."""
        return self._lay_out(self.layout.abstain, cursor, ())

    def retrieve(self, cursor: Cursor, chunks: Sequence[Chunk]) -> Prompt:
        """The sequence to generate from with `chunks` (best first) as cross-file context."""
        return self._lay_out(self.layout.retrieve, cursor, chunks)

    def _lay_out(self, parts: tuple[Part, ...], cursor: Cursor, chunks: Sequence[Chunk]) -> Prompt:
        markers: dict[Part, int] = {role: token for role, token in self.vocabulary.ids.items()}  # noqa: C416
        whole, last = split_last_word(cursor.prefix) if self._heals else (cursor.prefix, "")
        healed = self._encode_cached(last) if last else ()
        left, left_trimmed = self._left(whole, self.budgets.left - len(healed)) if "L" in parts else ((), False)
        right, right_trimmed = self._right(cursor.suffix) if "R" in parts else ((), False)
        context, used = self._context(cursor, chunks) if "CC" in parts else ((), ())
        slots: dict[Part, Callable[[], Sequence[int]]] = {
            "L": lambda: left,
            "R": lambda: right,
            "CC": lambda: context,
            "ANCHOR": lambda: self._encode_cached(anchor_of(cursor.prefix)),
            "REPO": lambda: self._encode_cached(f"{shown_path(PurePath(_root(chunks)).name)}\n"),
            "PATH": lambda: self._encode_cached(f"{shown_path(_relative(cursor.path, _root(chunks)))}\n"),
        }
        tokens: list[int] = []
        for part in parts:
            if part in slots:
                tokens.extend(slots[part]())
            elif part in markers:
                tokens.append(markers[part])
        if not tokens:  # the start of a file, for a model without markers: it has to read something
            tokens.extend(self._encode_cached("\n"))
        return Prompt(
            tuple(tokens),
            healed,
            last,
            len(left) + len(healed),
            len(right),
            len(context),
            left_trimmed,
            right_trimmed,
            used,
        )

    def _left(self, prefix: str, budget: int) -> tuple[tuple[int, ...], bool]:
        start = left_cut(prefix, budget, self.budgets.step_lines, self._line_tokens)
        tokens = self._encode_cached(prefix[start:])
        kept = tokens[max(0, len(tokens) - budget) :]
        return kept, start > 0 or len(kept) < len(tokens)

    def _right(self, suffix: str) -> tuple[tuple[int, ...], bool]:
        head = suffix[: self.budgets.right * LONGEST_TOKEN]
        tokens = self._encode_cached(head)
        kept = tokens[: self.budgets.right]
        return kept, len(head) < len(suffix) or len(kept) < len(tokens)

    def _context(self, cursor: Cursor, chunks: Sequence[Chunk]) -> tuple[tuple[int, ...], tuple[Chunk, ...]]:
        """CC within its budget: whole chunks, best first, the last one cut where a statement ends."""
        language = LANGUAGES.get(cursor.language)
        style = _STYLES[self.layout.context_style]
        write = partial(self._write, style, language.comment if language else "# ")
        tokens = list(self._encode_cached(style.head(language.comment if language else "# ")))
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

    def _write(self, style: _Style, comment: str, chunk: Chunk) -> tuple[int, ...]:
        # Tokens a chunk, not of all of them together: each stays the same wherever it ends up, and is made once.
        separator = (self.vocabulary.ids["file_sep"],) if style.separated else ()
        return separator + self._encode_cached(style.chunk(comment, chunk))


def left_cut(prefix: str, budget: int, step_lines: int, count: Callable[[str], int]) -> int:
    """Offset in `prefix` where L begins, so that the rest has at most `budget` tokens as `count` counts a line.

    It is the earliest fitting line whose number is a multiple of the step. Being a function of the text alone it
    needs no memory of earlier requests, and while lines are appended it moves once a step. The step is `step_lines`,
    or less (a power of two) where that would cost more than a quarter of the lines that fit. A cursor's line that is
    over budget on its own is returned whole, for the caller to cut by tokens.
    """
    window = prefix[max(0, len(prefix) - budget * LONGEST_TOKEN) :]
    lines = _split_lines(window)
    spent = taken = 0
    for line in reversed(lines):
        spent += count(line)
        if spent > budget:
            break
        taken += 1
    if taken == len(lines):
        if len(window) == len(prefix):
            return 0
        taken -= 1  # the window may begin inside this line
    if taken <= 0:
        return len(prefix) - len(lines[-1])
    step = min(step_lines, 1 << max(0, (taken // 4).bit_length() - 1))
    first = prefix.count("\n") + 1 - taken
    skip = -first % step
    return len(prefix) - sum(map(len, lines[len(lines) - taken + skip :]))


def anchor_of(prefix: str) -> str:
    """The last lines of `prefix` (`ANCHOR_LINES` of them, the cursor's own included)."""
    return "".join(_split_lines(prefix)[-ANCHOR_LINES:])


def _split_lines(text: str) -> list[str]:
    """Lines with their `\\n`; the last one, which has none, is the cursor's own and may be empty."""
    *whole, last = text.split("\n")
    return [line + "\n" for line in whole] + [last]


def _heads(chunk: Chunk) -> Iterator[Chunk]:
    """Heads of `chunk`, longest first, that end where a statement ends (judged by indentation).

    A head of fewer than three lines says too little to be worth its header.
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
    """`path` as it is called inside `root`, or its bare name where it stands elsewhere."""
    where = PurePath(path)
    return where.relative_to(root).as_posix() if root and where.is_relative_to(root) else where.name


class _Style(Protocol):
    """How chunks are written down. `separated`: each begins with the model's file separator."""

    separated: bool

    def head(self, comment: str) -> str: ...

    def chunk(self, comment: str, chunk: Chunk) -> str: ...


class _Commented:
    """The paper's format (section 3.2): every line a comment, so that any model takes it for what it is."""

    separated = False

    def head(self, comment: str) -> str:
        return f"\n\n{comment}{CONTEXT_PREAMBLE}\n\n"

    def chunk(self, comment: str, chunk: Chunk) -> str:
        body = "\n".join(comment + line for line in _body(chunk).splitlines())
        return f"{comment}{CHUNK_PREAMBLE}\n{comment}{shown_path(chunk.path)}\n{body}\n\n"


class _Plain:
    """Path and code as it is: half the overhead, and what is worth copying can be copied token by token."""

    separated = False

    def head(self, comment: str) -> str:
        return ""

    def chunk(self, comment: str, chunk: Chunk) -> str:
        return f"{comment}{shown_path(chunk.path)}\n{_body(chunk).rstrip()}\n\n"


class _Files:
    """Repository-level fill-in-the-middle (Qwen2.5-Coder, StarCoder2): each chunk is a small file."""

    separated = True

    def head(self, comment: str) -> str:
        return ""

    def chunk(self, comment: str, chunk: Chunk) -> str:
        return f"{shown_path(chunk.path)}\n{_body(chunk).rstrip()}\n"


def _body(chunk: Chunk) -> str:
    return f"{chunk.header}\n{chunk.text}" if chunk.header else chunk.text


_STYLES: Mapping[ContextStyle, _Style] = {"commented": _Commented(), "plain": _Plain(), "files": _Files()}
