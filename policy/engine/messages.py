"""The value types of the engine protocol: what a server and a worker process tell each other.

Both sides import this module and `protocol`; neither imports the other's code. Times are milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from indexer.model import Chunk, Cursor
from policy.prompting.prompt import Budgets


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the server knows of a loaded model. `metadata` is the GGUF's, without the tokenizer.

    `shrunk`: the context holds less than what the model reads, so `budgets` are smaller than its own.
    """

    name: str
    layout: str
    selective: bool
    budgets: Budgets
    shrunk: bool
    context_size: int
    gpu_offload: bool
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reading:
    """What is known after reading L and R.

    `p_cc` is the full-vocabulary softmax probability of `<cc>` behind `<eof>` (paper, section 3.2); None for a model
    without that token. `first_p` is the probability of the likeliest first token of a generation without context,
    `first_entropy` the entropy of all of them in nats; None where nobody knows (a server). Times are milliseconds.
    """

    p_cc: float | None
    cc_is_top: bool
    first_p: float | None
    first_entropy: float | None
    prompt_tokens: int
    evaluated_tokens: int
    prompt_ms: float
    prefill_ms: float


@dataclass(frozen=True, slots=True)
class UsedChunk:
    """A chunk that stands in the prompt: its place in the list that was offered, and the last line that fitted."""

    index: int
    end_line: int


@dataclass(frozen=True, slots=True)
class PromptStats:
    """The prompt that a generation started from. Times are milliseconds."""

    prompt_tokens: int
    evaluated_tokens: int
    context_tokens: int
    left_trimmed: bool
    right_trimmed: bool
    chunks: tuple[UsedChunk, ...]
    prompt_ms: float
    prefill_ms: float


@dataclass(frozen=True, slots=True)
class Stop:
    """When a generation of a batch ends, unless the model ends it.

    After `tokens` tokens; with its `lines`-th whole line that is not blank (0: never); or with a whole line, other
    than the first, that is indented by less than `indent` characters.
    """

    tokens: int
    lines: int = 0
    indent: int = 0

    def reached(self, text: str) -> bool:
        """Whether `text`, the generation so far, is enough."""
        first, *others = text.split("\n")
        whole = [line for line in others[:-1] if line.strip()]
        if self.lines and len(whole) + bool(others and first.strip()) >= self.lines:
            return True
        return any(len(line) - len(line.lstrip()) < self.indent for line in whole)


@dataclass(frozen=True, slots=True)
class Trial:
    """One generation of a batch: at `cursor`, without (None) or with chunks. `truth`, unless None, is scored too."""

    cursor: Cursor
    chunks: Sequence[Chunk] | None
    stop: Stop
    truth: str | None = None


@dataclass(frozen=True, slots=True)
class Completed:
    """What came of a `Trial`. `surprises` are -ln P of each generated token, the ending one included, in nats.

    `ends` are the lengths of the text after each of those tokens, in characters.
    """

    text: str
    tokens: int
    ended: bool
    surprises: tuple[float, ...]
    ends: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Truth:
    """What the true text costs behind a prompt: -ln P of all of its tokens, the ending one included, in nats."""

    nats: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Tried:
    """A finished trial: what was known before (`reading`, of a plain one), the prompt, the completion.

    `truth` is what the true text costs, where it was asked for.
    """

    reading: Reading | None
    prompt: PromptStats
    completed: Completed
    truth: Truth | None = None


class Surprise(NamedTuple):
    """-ln P of a generated token, in nats, and how many characters the text has after it."""

    end: int
    nats: float


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """Text to generate at `cursor`, greedily, without (None) or with cross-file chunks.

    `slot` names the sequence of the KV cache. `candidates` is how many texts are wanted; the first is the greedy one.
    """

    slot: str
    cursor: Cursor
    chunks: Sequence[Chunk] | None
    max_tokens: int
    candidates: int = 1


class Urgency:
    """Whether somebody waits for the calls made with it. Those in the background give way to all others.

    A change counts at once, for calls that wait or run already too.
    """

    def __init__(self, *, background: bool = False) -> None:
        self.background = background
        self.followers: set[Callable[[bool], None]] = set()

    def change(self, *, background: bool) -> None:
        """Somebody waits for it now, or nobody any more."""
        if background != self.background:
            self.background = background
            for follower in tuple(self.followers):
                follower(background)
