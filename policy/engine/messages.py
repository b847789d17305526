"""The value types of the protocol between a server and a worker process.

Both sides import this module and `protocol`, but not each other's code. Times are in milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from indexer.model import Chunk, Cursor
from policy.prompting.prompt import Budgets


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Information about a loaded model. `metadata` is the GGUF's, with that of the model's card, without the tokenizer.

    `selective` says that the model makes its own decisions. `shrunk` says that the context is too small for the model's
    budgets, so that `budgets` are smaller.
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
    """What the model says about the decision, after it has read the text before and after the cursor.

    `p_cc` is the full-vocabulary softmax probability of `<cc>` after `<eof>` (paper, section 3.2), or None for a model
    without that token. `first_p` is the probability of the most probable first token of a generation without context,
    and `first_entropy` the entropy of that distribution in nats. Both are None if they are unknown, as after a
    generation by an HTTP server. Times are in milliseconds.
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
    """A chunk in the prompt: its index in the list of offered chunks, and the number of the last line that fit."""

    index: int
    end_line: int


@dataclass(frozen=True, slots=True)
class PromptStats:
    """Statistics of the prompt of a generation. Times are in milliseconds."""

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
    """The limits of a generation in a batch. The model may end its text earlier.

    The generation ends after `tokens` tokens, with its `lines`-th complete line that is not blank (0: no limit), or
    with a complete line, other than the first, whose indentation is less than `indent` characters.
    """

    tokens: int
    lines: int = 0
    indent: int = 0

    def reached(self, text: str) -> bool:
        """Return whether `text`, the generation so far, has reached a limit."""
        first, *others = text.split("\n")
        whole = [line for line in others[:-1] if line.strip()]
        if self.lines and len(whole) + bool(others and first.strip()) >= self.lines:
            return True
        return any(len(line) - len(line.lstrip()) < self.indent for line in whole)


@dataclass(frozen=True, slots=True)
class Trial:
    """One generation in a batch at `cursor`, with the chunks of other files in the prompt, or without (None).

    If `truth` is not None, the likelihood of that text is also computed.
    """

    cursor: Cursor
    chunks: Sequence[Chunk] | None
    stop: Stop
    truth: str | None = None


@dataclass(frozen=True, slots=True)
class Completed:
    """The generated text of a `Trial`.

    `surprises` has -ln P of each generated token in nats, including the end token. `ends` has the lengths of the text
    after each of those tokens, in characters.
    """

    text: str
    tokens: int
    ended: bool
    surprises: tuple[float, ...]
    ends: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Truth:
    """The score of the true text after a prompt: the sum of -ln P, in nats, of its tokens and the end token.

    `tokens` is the number of these tokens.
    """

    nats: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Tried:
    """A finished trial: the reading (for a trial without chunks), the prompt, and the completion.

    `truth` is the score of the true text, if it was requested.
    """

    reading: Reading | None
    prompt: PromptStats
    completed: Completed
    truth: Truth | None = None


class Surprise(NamedTuple):
    """-ln P of a generated token, in nats, and the length of the text after it, in characters."""

    end: int
    nats: float


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A request to generate greedily at `cursor`, with chunks of other files in the prompt, or without (None).

    `slot` names the sequence in the KV cache. `candidates` is the number of texts; the first is the greedy one.
    """

    slot: str
    cursor: Cursor
    chunks: Sequence[Chunk] | None
    max_tokens: int
    candidates: int = 1


class Urgency:
    """Says whether a user waits for some requests, or whether they run in the background.

    Any other request interrupts requests in the background. A change takes effect immediately, also for requests that
    are waiting or running: it calls all `followers`.
    """

    def __init__(self, *, background: bool = False) -> None:
        self.background = background
        self.followers: set[Callable[[bool], None]] = set()

    def change(self, *, background: bool) -> None:
        """Move the requests to the background, or out of it."""
        if background != self.background:
            self.background = background
            for follower in tuple(self.followers):
                follower(background)
