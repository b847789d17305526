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
    """Information about a loaded model.

    `selective` says that the model decides itself whether to retrieve (it has `<cc>`). `shrunk` says that `budgets` are
    smaller than the model's own, because these do not fit into the context. `metadata` has the entries of the GGUF file
    except the tokenizer, and those of the model's card.
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
    without that token. `cc_is_top` says whether `<cc>` is the most probable token. `first_p` is the probability of the
    most probable first token of a generation without chunks, and `first_entropy` is the entropy of that token's
    distribution in nats. Both are None if they are unknown, as after a generation by an HTTP server. `prompt_ms` is the
    time to build the prompt, and `prefill_ms` the time to evaluate it, in milliseconds. Before that, the request waited
    for `queue_ms` in the worker's request queue.
    """

    p_cc: float | None
    cc_is_top: bool
    first_p: float | None
    first_entropy: float | None
    prompt_tokens: int
    evaluated_tokens: int
    prompt_ms: float
    prefill_ms: float
    queue_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Missing:
    """How many tokens of each branch's prompt are not in the KV cache, and how many tokens its chunks have.

    `queue_ms` is the time in the worker's request queue.
    """

    tokens: tuple[int, ...]
    context_tokens: tuple[int, ...]
    queue_ms: float


@dataclass(frozen=True, slots=True)
class Work:
    """What an engine has done for all its clients since it loaded the model.

    `seconds` is the time inside llama.cpp, and `read_seconds` is the part of it that prompts took. `read_tokens` is the
    number of evaluated prompt tokens, and `written_tokens` is the number of generated tokens that were evaluated.
    Cancelled work counts too.
    """

    seconds: float
    read_seconds: float
    read_tokens: int
    written_tokens: int


@dataclass(frozen=True, slots=True)
class UsedChunk:
    """A chunk in the prompt: its index in the request's list of chunks, and the number of its last line that fits."""

    index: int
    end_line: int


@dataclass(frozen=True, slots=True)
class PromptStats:
    """Statistics of the prompt of a generation.

    `short` says that it was a short prompt, because the whole one was not in the KV cache (`worker/prompts.py`).
    `left_trimmed` and `right_trimmed` say whether the budget was too small for all of the text before and after the
    cursor. `prompt_ms` is the time to build the prompt, and `prefill_ms` the time to evaluate it, in milliseconds.
    Before that, the request waited for `queue_ms` in the worker's request queue.
    """

    prompt_tokens: int
    evaluated_tokens: int
    context_tokens: int
    left_trimmed: bool
    right_trimmed: bool
    chunks: tuple[UsedChunk, ...]
    prompt_ms: float
    prefill_ms: float
    queue_ms: float = 0.0
    short: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """The limits of a generation in a batch. The model may end its text earlier.

    The generation ends after `tokens` tokens, after `lines` complete lines that are not blank (0: no limit), or after a
    complete line, other than the first, whose indentation is less than `indent` characters.
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
    """One generation of a batch: at `cursor`, with `chunks` of other files in the prompt, or without chunks (None).

    If `truth` is not None, the likelihood of that text is also computed.
    """

    cursor: Cursor
    chunks: Sequence[Chunk] | None
    stop: Stop
    truth: str | None = None


@dataclass(frozen=True, slots=True)
class Completed:
    """The generated text of a `Trial`.

    `ended` says whether the model ended the text with an end token. `surprises` has -ln P of each generated token in
    nats, including the end token. `ends` has the length of the text after each of these tokens, in characters.
    """

    text: str
    tokens: int
    ended: bool
    surprises: tuple[float, ...]
    ends: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Truth:
    """The score of a truth after a prompt.

    `nats` is the sum of -ln P of the truth's tokens and the end token, in nats. `tokens` is the number of these tokens.
    """

    nats: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Tried:
    """The result of a trial: its reading (None for a trial with chunks), its prompt, and its completion.

    `truth` is the score of the trial's truth, or None if the trial has no truth.
    """

    reading: Reading | None
    prompt: PromptStats
    completed: Completed
    truth: Truth | None = None


class Surprise(NamedTuple):
    """-ln P of a generated token (`nats`), and the length of the text up to and including it, in characters (`end`)."""

    end: int
    nats: float


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A request to generate at `cursor`, with `chunks` of other files in the prompt, or without chunks (None).

    `slot` names the sequence in the KV cache. `candidates` is the number of texts; the first is the greedy one. If
    `whole` is true, the prompt is never a short one (`worker/prompts.py`).
    """

    slot: str
    cursor: Cursor
    chunks: Sequence[Chunk] | None
    max_tokens: int
    candidates: int = 1
    whole: bool = False


class Urgency:
    """Says whether certain requests run in the background, or whether a user waits for them.

    All other requests interrupt those in the background. A change also applies to requests that are already waiting or
    running, because `change` calls all `followers`.
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
