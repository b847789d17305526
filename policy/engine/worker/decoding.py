"""Greedy decoding: generate tokens after a prompt, one after another, for one text or for several candidates.

`continuation` and `candidates` are iterators that evaluate only when the next token is requested, so a caller that
stops iterating frees the engine. They yield each token with its surprise, -ln P in nats, which is computed by a sum
over the vocabulary. The module also has functions for probabilities.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from policy.engine.messages import Reading
from policy.engine.worker.cache import KvCache
from policy.prompting.healing import PieceIndex, left_to_write
from policy.tracing import span

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from policy.prompting.prompt import Prompt

FORK = 0.1  # the minimum probability of a token that starts another candidate
_LEAST = np.float32(-80)  # a token whose logit is this much less than the greatest has a probability of about 0


class Pieces(Protocol):
    """What decoding needs of a vocabulary."""

    @property
    def index(self) -> PieceIndex:
        """The tokens by their bytes."""
        ...

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token, which are empty for a marker."""
        ...


@dataclass(frozen=True, slots=True)
class Start:
    """The start of a generation.

    `base` has the tokens that were evaluated as a prompt, and `logits`, shape (n_vocab,), the logits after them. The
    first generated tokens have to spell `expected`, the rest of the healed word (`policy.prompting.healing`). Tokens
    that do not agree with `expected` are not yet excluded from the logits.
    """

    base: tuple[int, ...]
    logits: NDArray[np.float32]
    expected: bytes = b""


def start_of(prompt: Prompt, rows: Sequence[NDArray[np.float32]], tokenizer: Pieces) -> Start:
    """Return the start of a generation, after the prompt and the tokens of the healed word were evaluated together.

    The last of the `rows` are the logits after the prompt and after each token of the healed word; earlier rows are
    ignored. The tokens of the healed word count as part of the prompt as long as the model would generate the same
    tokens. The generation starts where the model would generate a different token.
    """
    expected = prompt.healed_text.encode("utf-8", "replace")
    for number, token in enumerate(prompt.healed):
        row = rows[number - len(prompt.healed) - 1]
        if int(tokenizer.index.mask(row, expected).argmax()) != token:
            return Start((*prompt.tokens, *prompt.healed[:number]), row, expected)
        expected = left_to_write(expected, tokenizer.piece(token))
    return Start((*prompt.tokens, *prompt.healed), rows[-1])


class Chosen(NamedTuple):
    """A generated token and its surprise, -ln P in nats.

    P is the probability among the tokens that agree with the healed word (`PieceIndex.mask`).
    """

    token: int
    surprise: float


def likeliest(logits: NDArray[np.float32]) -> Chosen:
    """Return the most probable token and its surprise."""
    with span("choose"):
        token = int(logits.argmax())
        # A sum in single precision is exact enough (an error of 1e-6 nats), because numpy adds in pairs.
        shares = logits - logits[token]
        return Chosen(token, math.log(np.exp(shares, out=shares).sum()))


def continuation(cache: KvCache, slot: str, start: Start, tokenizer: Pieces) -> Iterator[Chosen]:
    """Yield the most probable token after the tokens of `slot`, append it to `slot`, and repeat this without end."""
    logits, expected = start.logits, start.expected
    while True:
        chosen = likeliest(tokenizer.index.mask(logits, expected))
        yield chosen
        expected = left_to_write(expected, tokenizer.piece(chosen.token))
        logits = cache.extend(slot, chosen.token)


class TextDecoder:
    """Decodes the tokens of a text, without its first `skipped` bytes, which the document already has.

    A character may be split over several tokens. An incomplete character is kept until its last byte arrives.
    """

    def __init__(self, tokenizer: Pieces, skipped: int) -> None:
        self._tokenizer = tokenizer
        self._skipped = skipped
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def decode(self, token: int) -> str:
        """Return the text that `token` adds."""
        piece = self._tokenizer.piece(token)
        new = piece[self._skipped :]
        self._skipped -= len(piece) - len(new)
        return self._decoder.decode(new)


@dataclass(frozen=True, slots=True)
class Step:
    """A new token of a candidate. The first step of a candidate other than 0 has all of its tokens so far."""

    candidate: int
    chosen: tuple[Chosen, ...]


def candidates(
    cache: KvCache, slot: str, start: Start, tokenizer: Pieces, count: int, ends: Callable[[int], bool]
) -> Iterator[Step]:
    """Yield up to `count` continuations of `slot` in parallel. Each ends with a token for which `ends` returns True.

    Candidate 0 is the greedy one. At each of its tokens, an alternative with a probability of at least `FORK` starts a
    new candidate, which continues greedily, until there are `count` candidates. Candidate 0 is evaluated alone, and the
    others together in one batch. In a batch, sums are rounded differently, which might change the text of candidate 0.
    """
    slots = [slot]
    generated: list[list[Chosen]] = [[]]
    expected = [start.expected]
    running = {0: start.logits}
    try:
        while running:
            chosen: dict[int, int] = {}
            running = {number: tokenizer.index.mask(row, expected[number]) for number, row in running.items()}
            for number, row in running.items():
                best = likeliest(row)
                chosen[number] = best.token
                generated[number].append(best)
                yield Step(number, (best,))
            if 0 in running:
                for other in _alternatives(running[0], count - len(slots)):
                    if ends(other.token):
                        continue
                    number = len(slots)
                    slots.append(f"{slot}/{number}")
                    cache.fork(slot, slots[number])
                    generated.append([*generated[0][:-1], other])
                    expected.append(expected[0])
                    chosen[number] = other.token
                    yield Step(number, tuple(generated[number]))
            for number, token in chosen.items():
                expected[number] = left_to_write(expected[number], tokenizer.piece(token))
            going = [number for number, token in chosen.items() if not ends(token)]
            if not going:
                return
            running = {}
            if others := {slots[number]: chosen[number] for number in going if number}:
                running = dict(zip(filter(None, going), map(np.copy, cache.extend_all(others)), strict=True))
            if 0 in going:
                running = {0: cache.extend(slot, chosen[0]), **running}
    finally:
        for branch in slots[1:]:
            cache.forget(branch)


def _alternatives(logits: NDArray[np.float32], count: int) -> list[Chosen]:
    """Return up to `count` tokens after the most probable one, each with a probability of at least `FORK`."""
    if count <= 0:
        return []
    shifted = np.exp(logits - logits.max())
    best = np.argpartition(-shifted, count + 1)[: count + 1]
    ranked = sorted(best, key=lambda token: -shifted[token])[1:]
    total = shifted.sum()
    return [
        Chosen(int(token), -float(np.log(shifted[token] / total))) for token in ranked if shifted[token] >= FORK * total
    ]


def probability(logits: NDArray[np.float32], token: int) -> float:
    """Return the softmax probability of `token`."""
    best, surprise = likeliest(logits)
    return math.exp(float(logits[token]) - float(logits[best]) - surprise)


def with_first(reading: Reading, logits: NDArray[np.float32]) -> Reading:
    """Return `reading` with `first_p` and `first_entropy` from `logits`, those of the first token to generate."""
    # The limit keeps the product of 0 and minus infinity out of the sum.
    shifted = np.maximum(logits - logits.max(), _LEAST)
    shares = np.exp(shifted)
    total = float(shares.sum())
    return replace(reading, first_p=1 / total, first_entropy=math.log(total) - float(shares @ shifted) / total)
