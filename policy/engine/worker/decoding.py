"""Greedy decoding: from the logits behind a prompt to tokens, one after another, in one stream or several.

Both functions are iterators that evaluate nothing before it is asked for: whoever stops iterating frees the engine.
Beside them, what logits say of themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from policy.engine.client import Reading
from policy.engine.worker.cache import KvCache

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORK = 0.1  # the least probability of a token that another candidate begins with


def continuation(cache: KvCache, slot: str, logits: NDArray[np.float32]) -> Iterator[int]:
    """The likeliest token behind `slot`, then the likeliest behind that, without end."""
    while True:
        token = int(logits.argmax())
        yield token
        logits = cache.extend(slot, token)


@dataclass(frozen=True, slots=True)
class Step:
    """A token of one of several candidates. The first token of a later one comes with all that stands before it."""

    candidate: int
    tokens: tuple[int, ...]


def candidates(
    cache: KvCache, slot: str, logits: NDArray[np.float32], count: int, ends: Callable[[int], bool]
) -> Iterator[Step]:
    """Up to `count` continuations of `slot`, side by side; each ends with a token that `ends` it.

    Candidate 0 is the greedy one. Wherever another token than the likeliest is likely as well, another candidate
    branches off it and goes on greedily, until there are enough. The others are evaluated in one batch, the greedy one
    by itself, as it always is: a row in a batch is summed in another way, and might say something else.
    """
    slots = [slot]
    said: list[list[int]] = [[]]
    running = {0: logits}
    try:
        while running:
            chosen: dict[int, int] = {}
            for number, row in running.items():
                token = chosen[number] = int(row.argmax())
                said[number].append(token)
                yield Step(number, (token,))
            if 0 in running:
                for token in _alternatives(running[0], count - len(slots)):
                    if ends(token):
                        continue
                    number = len(slots)
                    slots.append(f"{slot}/{number}")
                    cache.fork(slot, slots[number])
                    said.append([*said[0][:-1], token])
                    chosen[number] = token
                    yield Step(number, tuple(said[number]))
            going = [number for number, token in chosen.items() if not ends(token)]
            if not going:
                return
            running = {}
            if others := {slots[number]: chosen[number] for number in going if number}:
                running = dict(zip(filter(None, going), map(np.copy, cache.extend_all(others)), strict=True))
            if 0 in going:
                running = {0: cache.extend(slot, chosen[0]), **running}
    finally:
        for other in slots[1:]:
            cache.forget(other)


def _alternatives(logits: NDArray[np.float32], count: int) -> list[int]:
    """Up to `count` tokens, other than the likeliest, that are likely enough to be meant; best first."""
    if count <= 0:
        return []
    shifted = np.exp(logits - logits.max())
    best = np.argpartition(-shifted, count + 1)[: count + 1]
    ranked = sorted(best, key=lambda token: -shifted[token])[1:]
    return [int(token) for token in ranked if shifted[token] >= FORK * shifted.sum()]


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
    """`reading`, and how sure the model is of the first token that it would generate."""
    probabilities = softmax(logits)
    return replace(reading, first_p=float(probabilities.max()), first_entropy=entropy(probabilities))
