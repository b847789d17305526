"""Many generations at once: one row a sequence in every batch, so that the weights are read once for all of them.

Serving never does this; evaluation lives by it. The sequences are *lanes*: whichever ends takes the next trial at
once, so that the batch stays full until there is nothing left to begin. A lane keeps what it evaluated until it is
taken again, and a prompt begins with a copy of whatever lane shares most of it: the two branches of a blank stand next
to each other for that.
"""

from __future__ import annotations

import codecs
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from policy.engine.client import Completed, PromptStats, Reading, Trial, Tried
from policy.engine.worker.cache import WORTH_COPYING, Aborted, common_prefix, prompt_rows
from policy.engine.worker.decoding import with_first
from policy.engine.worker.llama import Row
from policy.errors import EngineFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from policy.engine.worker.llama import Llama
    from policy.prompting.prompt import Prompt, PromptBuilder


@dataclass(slots=True)
class _Running:
    """A generation on the way. `next` is evaluated with the next step; `surprises` are -ln P of what was generated."""

    number: int
    trial: Trial
    prompt: PromptStats
    reading: Reading | None
    next: int
    decoder: codecs.IncrementalDecoder = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))
    text: str = ""
    tokens: int = 0
    ended: bool = False
    surprises: list[float] = field(default_factory=list)

    def finished(self) -> tuple[int, Tried]:
        completed = Completed(self.text, self.tokens, self.ended, tuple(self.surprises))
        return self.number, Tried(self.reading, self.prompt, completed)


@dataclass(slots=True)
class _Lane:
    """A sequence of llama.cpp's: the tokens it holds, and what runs in it."""

    id: int
    tokens: list[int] = field(default_factory=list)
    running: _Running | None = None


class Batch:
    """Greedy generations side by side. It has the context to itself while it runs.

    `judge(logits, prompt_tokens, evaluated, milliseconds)` makes a reading, `ends` says whether a token ends a text,
    `tell` describes a prompt.
    """

    def __init__(
        self,
        llama: Llama,
        builder: PromptBuilder,
        judge: Callable[[NDArray[np.float32], int, int, float], Reading],
        ends: Callable[[int], bool],
        tell: Callable[[Prompt, Trial, int, float], PromptStats],
    ) -> None:
        self._llama = llama
        self._builder = builder
        self._judge = judge
        self._ends = ends
        self._tell = tell
        self._lanes: list[_Lane] = []

    def run(self, trials: Sequence[Trial]) -> Iterator[tuple[int, Tried]]:
        """Each trial's place in `trials` and what came of it, in the order in which they end.

        Raises `Aborted`, and `EngineFailed` for a prompt that does not fit, which the trials before it survive.
        """
        self._lanes = [_Lane(number) for number in range(min(self._llama.n_seq, len(trials)))]
        waiting = deque(enumerate(trials))
        try:
            while waiting or any(lane.running for lane in self._lanes):
                for lane in self._lanes:
                    while waiting and lane.running is None:
                        if ended := self._begin(lane, *waiting.popleft()):
                            yield ended
                yield from self._step()
        finally:
            for lane in self._lanes:
                self._llama.truncate(lane.id, 0)

    def _begin(self, lane: _Lane, number: int, trial: Trial) -> tuple[int, Tried] | None:
        """Evaluate a trial's prompt in `lane`; returns it where it ends with its first token."""
        started = time.perf_counter()
        plain = trial.chunks is None
        prompt = (
            self._builder.abstain(trial.cursor) if plain else self._builder.retrieve(trial.cursor, trial.chunks or ())
        )
        tokens = list(prompt.tokens)
        wanted = len(tokens) + trial.stop.tokens
        if wanted > self._llama.n_ctx_seq:
            raise EngineFailed(f"{wanted} tokens do not fit a context of {self._llama.n_ctx_seq}")
        # As `KvCache.evaluate` does it, so that the same is known here of a prompt as when it is served.
        shared = self._share(lane, tokens[:-2])
        for rows in prompt_rows(lane.id, shared, tokens[shared:], self._llama.n_ubatch):
            self._decode(rows)
            lane.tokens += [row.token for row in rows]
        spent = (time.perf_counter() - started) * 1e3
        reading: Reading | None = None
        if plain:
            # The decision is read on the way, in the row before the last: `abstain` ends with one token behind it.
            row = -2 if self._builder.layout.selective else -1
            reading = self._judge(self._llama.logits(row), len(tokens), len(tokens) - shared, spent)
        told = self._tell(prompt, trial, len(tokens) - shared, spent)
        running = _Running(number, trial, told, reading, tokens[-1])
        if not self._take(running, self._llama.logits()):
            return running.finished()
        lane.running = running
        return None

    def _step(self) -> Iterator[tuple[int, Tried]]:
        """One more token for each that runs; yields those that end with it."""
        running = [(lane, lane.running) for lane in self._lanes if lane.running]
        if not running:
            return
        # In the order of the lanes: llama.cpp evaluates neighbouring sequences together.
        self._decode([Row(each.next, len(lane.tokens), lane.id, logits=True) for lane, each in running])
        for row, (lane, each) in enumerate(running):
            lane.tokens.append(each.next)
            if not self._take(each, self._llama.logits(row)):
                lane.running = None
                yield each.finished()

    def _take(self, each: _Running, logits: NDArray[np.float32]) -> bool:
        """Add the likeliest token; False where the generation is over with it."""
        token, surprise = likeliest(logits)
        if each.tokens == 0 and each.reading is not None:
            each.reading = with_first(each.reading, logits)
        each.tokens += 1
        each.surprises.append(round(surprise, 5))
        if self._ends(token):
            each.ended = True
            return False
        each.text += each.decoder.decode(self._llama.piece(token))
        each.next = token
        return each.tokens < each.trial.stop.tokens and not each.trial.stop.reached(each.text)

    def _share(self, lane: _Lane, tokens: list[int]) -> int:
        """Let `lane` hold what any lane holds of `tokens`, from their beginning; returns how much that is."""
        held = {other.id: common_prefix(other.tokens, tokens) for other in self._lanes}
        best = max(self._lanes, key=lambda other: held[other.id])
        if held[best.id] < held[lane.id] + WORTH_COPYING:
            best = lane
        length = held[best.id]
        if best is not lane:
            self._llama.truncate(lane.id, 0)
            length = self._llama.copy(best.id, lane.id, length)
        elif not self._llama.truncate(lane.id, length):  # recurrent models cannot forget a part
            self._llama.truncate(lane.id, 0)
            length = 0
        lane.tokens = tokens[:length]
        return length

    def _decode(self, rows: Sequence[Row]) -> None:
        match self._llama.decode(rows):
            case "aborted":
                raise Aborted
            case "full":
                raise EngineFailed(f"{len(self._lanes)} sequences outgrew a context of {self._llama.n_ctx} tokens")


def likeliest(logits: NDArray[np.float32]) -> tuple[int, float]:
    """The arg-max and its surprise, -ln P, in nats."""
    token = int(logits.argmax())
    top = float(logits[token])
    return token, float(np.log(np.exp(logits - top, dtype=np.float32).sum(dtype=np.float64)))
