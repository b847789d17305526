"""Many generations at once: one row a sequence in every batch, so that the weights are read once for all of them.

Serving never does this; evaluation lives by it. Each sequence is prefilled by the KV cache as ever, which shares what
prompts have in common (the two branches of one blank, above all), and then all of them take their steps together.
A sequence that ends leaves the batch. The whole of it has to fit the context at once: nothing is evicted on the way.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from policy.engine.cache import KvCache
from policy.engine.client import Completed, Stop
from policy.errors import EngineFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from policy.engine.llama import Llama

BATCH = "batch#"  # how the names of its slots begin


@dataclass(slots=True)
class _Running:
    """A generation on the way. `surprises` are the negative log-probabilities (nats) of its tokens."""

    slot: str
    stop: Stop
    decoder: codecs.IncrementalDecoder
    text: str = ""
    tokens: int = 0
    ended: bool = False
    surprises: list[float] = field(default_factory=list)


class Batch:
    """Greedy generations that go on side by side in one cache."""

    def __init__(self, llama: Llama, cache: KvCache, markers: set[int]) -> None:
        self._llama = llama
        self._cache = cache
        self._markers = markers

    def check(self, prompts: Sequence[int], stops: Sequence[Stop]) -> None:
        """Raise `EngineFailed` unless prompts of these lengths, and what they may grow to, fit at once."""
        wanted = sum(prompts) + sum(stop.tokens for stop in stops)
        if len(prompts) > self._llama.n_seq or wanted > self._llama.n_ctx:
            raise EngineFailed(
                f"{len(prompts)} sequences of {wanted} tokens together do not fit {self._llama.n_seq} sequences in a "
                f"context of {self._llama.n_ctx}: batch fewer"
            )

    def generate(self, starts: Sequence[tuple[str, Stop, int, float]]) -> list[Completed]:
        """Go on from (slot, when to stop, first token, its surprise) until all have ended."""
        every = [_Running(slot, stop, codecs.getincrementaldecoder("utf-8")("replace")) for slot, stop, _, _ in starts]
        running = [
            (each, token)
            for each, (_, _, token, surprise) in zip(every, starts, strict=True)
            if self._take(each, token, surprise)
        ]
        while running:
            logits = self._cache.extend_all({each.slot: token for each, token in running})
            steps = [(each, *likeliest(row)) for (each, _), row in zip(running, logits, strict=True)]
            running = [(each, token) for each, token, surprise in steps if self._take(each, token, surprise)]
        return [Completed(each.text, each.tokens, each.ended, tuple(each.surprises)) for each in every]

    def _take(self, each: _Running, token: int, surprise: float) -> bool:
        """Add a token; False where the generation is over with it."""
        each.tokens += 1
        each.surprises.append(round(surprise, 5))
        if token in self._markers or self._llama.ends_text(token):
            each.ended = True
            return False
        each.text += each.decoder.decode(self._llama.piece(token))
        return each.tokens < each.stop.tokens and not each.stop.reached(each.text)


def likeliest(logits: NDArray[np.float32]) -> tuple[int, float]:
    """The arg-max and its surprise, -ln P, in nats."""
    token = int(logits.argmax())
    top = float(logits[token])
    return token, float(np.log(np.exp(logits - top, dtype=np.float32).sum(dtype=np.float64)))


def slots(count: int) -> Iterator[str]:
    """Names for the sequences of a batch."""
    return (f"{BATCH}{number}" for number in range(count))
