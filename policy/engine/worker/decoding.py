"""Greedy decoding: from the logits behind a prompt to tokens, one after another, in one stream or several.

Both functions are iterators that evaluate nothing before it is asked for: the engine is free once iteration stops.
Each token comes with its surprise, -ln P in nats. That costs a sum over the vocabulary, a small part of the time of an
evaluation. Beside them, what logits say of themselves.
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

FORK = 0.1  # the least probability of a token that another candidate begins with


class Pieces(Protocol):
    """What decoding needs to know of a vocabulary: the bytes of a token, and the tokens by their bytes."""

    @property
    def index(self) -> PieceIndex:
        """The tokens by their bytes."""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes of a token; nothing for a marker."""
        ...


@dataclass(frozen=True, slots=True)
class Start:
    """Where a generation starts: logits, shape (n_vocab,), and the bytes that its first tokens have to write.

    `base` are the tokens that were evaluated as a prompt. `expected` is what is left of the healed word
    (`policy.prompting.healing`); the logits are not masked.
    """

    base: tuple[int, ...]
    logits: NDArray[np.float32]
    expected: bytes = b""


def start_of(prompt: Prompt, rows: Sequence[NDArray[np.float32]], tokenizer: Pieces) -> Start:
    """Where a generation starts whose prompt and healed tokens were evaluated together.

    `rows` are the logits behind the last tokens, at least one row before the healed ones. As long as the model would
    write the healed tokens itself they count as written; the generation starts where it would write another one.
    """
    expected = prompt.healed_text.encode("utf-8", "replace")
    for number, token in enumerate(prompt.healed):
        row = rows[number - len(prompt.healed) - 1]
        if int(tokenizer.index.mask(row, expected).argmax()) != token:
            return Start((*prompt.tokens, *prompt.healed[:number]), row, expected)
        expected = left_to_write(expected, tokenizer.piece(token))
    return Start((*prompt.tokens, *prompt.healed), rows[-1])


class Chosen(NamedTuple):
    """A generated token and its surprise, -ln P in nats, among the tokens that may come there."""

    token: int
    surprise: float


def likeliest(logits: NDArray[np.float32]) -> Chosen:
    """The arg-max and its surprise."""
    token = int(logits.argmax())
    top = float(logits[token])
    return Chosen(token, float(np.log(np.exp(logits - top, dtype=np.float32).sum(dtype=np.float64))))


def continuation(cache: KvCache, slot: str, start: Start, tokenizer: Pieces) -> Iterator[Chosen]:
    """The likeliest token behind `slot`, then the likeliest behind that, without end."""
    logits, expected = start.logits, start.expected
    while True:
        chosen = likeliest(tokenizer.index.mask(logits, expected))
        yield chosen
        expected = left_to_write(expected, tokenizer.piece(chosen.token))
        logits = cache.extend(slot, chosen.token)


@dataclass(frozen=True, slots=True)
class Step:
    """A token of one of several candidates. The first token of a later one comes with all that stands before it."""

    candidate: int
    chosen: tuple[Chosen, ...]


def candidates(
    cache: KvCache, slot: str, start: Start, tokenizer: Pieces, count: int, ends: Callable[[int], bool]
) -> Iterator[Step]:
    """Up to `count` continuations of `slot`, side by side; each ends with a token that `ends` it.

    Candidate 0 is the greedy one. Wherever another token than the likeliest is likely as well, another candidate
    branches off it and goes on greedily, until there are enough. The others are evaluated in one batch, the greedy one
    by itself, as it always is: a row in a batch is summed in another way, and might say something else.
    """
    slots = [slot]
    said: list[list[Chosen]] = [[]]
    expected = [start.expected]
    running = {0: start.logits}
    try:
        while running:
            chosen: dict[int, int] = {}
            running = {number: tokenizer.index.mask(row, expected[number]) for number, row in running.items()}
            for number, row in running.items():
                best = likeliest(row)
                chosen[number] = best.token
                said[number].append(best)
                yield Step(number, (best,))
            if 0 in running:
                for other in _alternatives(running[0], count - len(slots)):
                    if ends(other.token):
                        continue
                    number = len(slots)
                    slots.append(f"{slot}/{number}")
                    cache.fork(slot, slots[number])
                    said.append([*said[0][:-1], other])
                    expected.append(expected[0])
                    chosen[number] = other.token
                    yield Step(number, tuple(said[number]))
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
    """Up to `count` tokens, other than the likeliest, that are likely enough to be meant; best first."""
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
    """Probabilities over the whole vocabulary, in double precision: P(<cc>) is compared with a threshold."""
    shifted = np.exp(logits.astype(np.float64) - float(logits.max()))
    result: NDArray[np.float64] = shifted / shifted.sum()
    return result


def entropy(probabilities: NDArray[np.float64]) -> float:
    """Shannon entropy in nats."""
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log(positive)).sum())


def with_first(reading: Reading, logits: NDArray[np.float32]) -> Reading:
    """`reading`, and how sure the model is of the first token that it would generate (`logits` may be masked)."""
    probabilities = softmax(logits)
    return replace(reading, first_p=float(probabilities.max()), first_entropy=entropy(probabilities))
