"""Greedy decoding: from the logits after a prompt to tokens, one after another, as one text or several.

`continuation` and `candidates` are iterators that evaluate only when the next token is requested, so a caller that
stops iterating frees the engine. Each token comes with its surprise, -ln P in nats, which costs a sum over the
vocabulary. The module also has functions for probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from policy.engine.messages import Reading
from policy.engine.worker.cache import KvCache
from policy.prompting.healing import PieceIndex, left_to_write

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from policy.prompting.prompt import Prompt

FORK = 0.1  # the minimum probability of a token with which another candidate branches off


class Pieces(Protocol):
    """The interface of a vocabulary that decoding needs."""

    @property
    def index(self) -> PieceIndex:
        """The tokens by their bytes."""
        ...

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token, which are empty for a marker."""
        ...


@dataclass(frozen=True, slots=True)
class Start:
    """The start of a generation: logits, shape (n_vocab,), and the bytes that its first tokens have to spell.

    `base` has the tokens that were evaluated as a prompt. `expected` is the rest of the healed word
    (`policy.prompting.healing`). The logits still include tokens that do not agree with `expected`.
    """

    base: tuple[int, ...]
    logits: NDArray[np.float32]
    expected: bytes = b""


def start_of(prompt: Prompt, rows: Sequence[NDArray[np.float32]], tokenizer: Pieces) -> Start:
    """Return the start of a generation after its prompt and the tokens of the healed word were evaluated together.

    `rows` has the logits after the last tokens: one row after the prompt, and one after each token of the healed word.
    Rows before them are ignored. Tokens of the healed word that the model would generate itself count as part of the
    prompt. The generation starts at the first one where it would generate another token.
    """
    expected = prompt.healed_text.encode("utf-8", "replace")
    for number, token in enumerate(prompt.healed):
        row = rows[number - len(prompt.healed) - 1]
        if int(tokenizer.index.mask(row, expected).argmax()) != token:
            return Start((*prompt.tokens, *prompt.healed[:number]), row, expected)
        expected = left_to_write(expected, tokenizer.piece(token))
    return Start((*prompt.tokens, *prompt.healed), rows[-1])


class Chosen(NamedTuple):
    """A generated token and its surprise, -ln P in nats, among the tokens that the mask allows.

    The mask excludes tokens that do not agree with the healed word (`PieceIndex.mask`).
    """

    token: int
    surprise: float


def likeliest(logits: NDArray[np.float32]) -> Chosen:
    """Return the most probable token and its surprise."""
    token = int(logits.argmax())
    top = float(logits[token])
    return Chosen(token, float(np.log(np.exp(logits - top, dtype=np.float32).sum(dtype=np.float64))))


def continuation(cache: KvCache, slot: str, start: Start, tokenizer: Pieces) -> Iterator[Chosen]:
    """Yield the most probable token after the tokens of `slot`, then the most probable one after that, without end."""
    logits, expected = start.logits, start.expected
    while True:
        chosen = likeliest(tokenizer.index.mask(logits, expected))
        yield chosen
        expected = left_to_write(expected, tokenizer.piece(chosen.token))
        logits = cache.extend(slot, chosen.token)


@dataclass(frozen=True, slots=True)
class Step:
    """A new token of a candidate. The first step of any candidate but 0 has all tokens of that candidate so far."""

    candidate: int
    chosen: tuple[Chosen, ...]


def candidates(
    cache: KvCache, slot: str, start: Start, tokenizer: Pieces, count: int, ends: Callable[[int], bool]
) -> Iterator[Step]:
    """Yield up to `count` continuations of `slot` in parallel. Each ends with a token for which `ends` returns True.

    Candidate 0 is the greedy one. Where a token other than the most probable one is also probable, another candidate
    branches off and continues greedily, until there are `count`. The other candidates are evaluated in one batch. The
    greedy one is evaluated separately, as it is without candidates: in a batch, sums are rounded differently, which
    might change its text.
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
    """Return up to `count` tokens, other than the most probable one, with sufficient probability, best first."""
    if count <= 0:
        return []
    shifted = np.exp(logits - logits.max())
    best = np.argpartition(-shifted, count + 1)[: count + 1]
    ranked = sorted(best, key=lambda token: -shifted[token])[1:]
    total = shifted.sum()
    return [
        Chosen(int(token), -float(np.log(shifted[token] / total))) for token in ranked if shifted[token] >= FORK * total
    ]


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the probabilities of the whole vocabulary.

    They have double precision, because P(<cc>) is compared with a threshold.
    """
    shifted = np.exp(logits.astype(np.float64) - float(logits.max()))
    result: NDArray[np.float64] = shifted / shifted.sum()
    return result


def entropy(probabilities: NDArray[np.float64]) -> float:
    """Return the Shannon entropy in nats."""
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log(positive)).sum())


def with_first(reading: Reading, logits: NDArray[np.float32]) -> Reading:
    """Return `reading` with the probability and the entropy of the first token to generate. `logits` may be masked."""
    probabilities = softmax(logits)
    return replace(reading, first_p=float(probabilities.max()), first_entropy=entropy(probabilities))
