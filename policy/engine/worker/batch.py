"""Many generations in parallel: each batch has one row per sequence, so that one pass over the weights serves them all.

Only evaluation uses this module, never serving. The sequences are *lanes*, and each generation is a *trial*.
When a trial ends, its lane starts the next trial immediately, so that the batch stays full until no trial is left. A
lane keeps its tokens until its next trial. A new trial copies the tokens of the lane that shares the longest prefix
with its prompt. Therefore callers should put the two trials of a blank, without and with chunks, next to each other.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from policy.engine.messages import Completed, PromptStats, Reading, Trial, Tried, Truth
from policy.engine.worker.batching import MIN_ROWS, Row, prompt_rows, reusable, whole_blocks
from policy.engine.worker.cache import WORTH_COPYING, Aborted
from policy.engine.worker.decoding import TextDecoder, likeliest, start_of, with_first
from policy.errors import EngineFailed
from policy.prompting.healing import left_to_write

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from policy.engine.worker.llama import Llama
    from policy.prompting.prompt import Prompt, PromptBuilder


@dataclass(slots=True)
class _Running:
    """A generation in progress.

    `number` is the index of the trial. `next` is the token to evaluate in the next step. `surprises` has -ln P of each
    generated token in nats, and `ends` the length of the text after each of these tokens, in characters.
    """

    number: int
    trial: Trial
    prompt: PromptStats
    reading: Reading | None
    expected: bytes  # the rest of the healed word
    decoder: TextDecoder
    next: int = 0
    text: str = ""
    tokens: int = 0
    ended: bool = False
    surprises: list[float] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    truth: Truth | None = None

    def finished(self) -> tuple[int, Tried]:
        completed = Completed(self.text, self.tokens, self.ended, tuple(self.surprises), tuple(self.ends))
        return self.number, Tried(self.reading, self.prompt, completed, self.truth)


@dataclass(slots=True)
class _Lane:
    """A sequence in llama.cpp: its tokens, and its running generation."""

    id: int
    tokens: list[int] = field(default_factory=list)
    read: int = 0  # the first `read` tokens were evaluated as a prompt
    running: _Running | None = None


class Batch:
    """Greedy generations in parallel. A running batch needs the whole context.

    `judge(logits, prompt_tokens, evaluated, milliseconds)` makes a reading. `ends` returns whether a token ends a text.
    `describe(prompt, trial, evaluated, milliseconds)` makes the statistics of a prompt. `end` is the token that ends a
    truth.
    """

    def __init__(
        self,
        llama: Llama,
        builder: PromptBuilder,
        judge: Callable[[NDArray[np.float32], int, int, float], Reading],
        ends: Callable[[int], bool],
        describe: Callable[[Prompt, Trial, int, float], PromptStats],
        end: int,
    ) -> None:
        self._llama = llama
        self._builder = builder
        self._judge = judge
        self._ends = ends
        self._describe = describe
        self._end = end
        self._lanes: list[_Lane] = []

    def run(self, trials: Sequence[Trial]) -> Iterator[tuple[int, Tried]]:
        """Yield the index in `trials` and the result of each trial, in the order in which they end.

        Raises `Aborted`, and `EngineFailed` for a prompt that does not fit into the context. Results yielded before the
        error remain valid.
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
        """Evaluate a trial's prompt in `lane`. Return the result if the trial ends with its first token."""
        started = time.perf_counter()
        prompt = self._builder.build(trial.cursor, trial.chunks)
        tokens = list(prompt.whole)
        asked = max(MIN_ROWS, len(prompt.healed) + 1)
        wanted = len(tokens) + max(trial.stop.tokens, len(truth := self._truth(prompt, trial)))
        if wanted > self._llama.n_ctx_seq:
            raise EngineFailed(f"{wanted} tokens do not fit into a context of {self._llama.n_ctx_seq}")
        # The prompt is evaluated in the same way as in `KvCache.evaluate`, so that the logits equal those in serving.
        shared = self._share(lane, tokens[: whole_blocks(len(tokens) - asked, self._llama.block)])
        self._fill(lane, tokens[shared:], asked)
        lane.read = len(tokens)
        spent = (time.perf_counter() - started) * 1e3
        logits = [self._llama.logits(row - asked) for row in range(asked)]
        start = start_of(prompt, logits, self._llama)
        before = logits[-len(prompt.healed) - 1]  # the logits after the prompt without its healed word
        reading: Reading | None = None
        if trial.chunks is None:
            # After the prompt for the decision, the prompt of an abstention has one more token. So the logits from
            # which the decision is made are in the row before the last.
            row = -2 if self._builder.layout.selective else -1
            reading = self._judge(logits[row], len(tokens), len(tokens) - shared, spent)
        stats = self._describe(prompt, trial, len(tokens) - shared, spent)
        decoder = TextDecoder(self._llama, len(start.expected))
        running = _Running(number, trial, stats, reading, start.expected, decoder)
        continues = self._take(running, start.logits)
        if truth:
            running.truth = self._score(lane, prompt, truth, before)
            # Evaluate the end of the prompt again, in the same batch as before, because the truth has replaced it.
            self._cut(lane, whole_blocks(min(len(prompt.tokens), len(tokens) - asked), self._llama.block))
            self._fill(lane, tokens[len(lane.tokens) :], asked)
            lane.read = len(tokens)
        self._cut(lane, len(start.base))
        if not continues:
            return running.finished()
        lane.running = running
        return None

    def _step(self) -> Iterator[tuple[int, Tried]]:
        """Generate one more token in each running lane. Yield the results of the trials that end with this token."""
        running = [(lane, lane.running) for lane in self._lanes if lane.running]
        if not running:
            return
        # The rows are in the order of the lanes, because llama.cpp evaluates sequences with adjacent numbers together.
        self._decode([Row(each.next, len(lane.tokens), lane.id, logits=True) for lane, each in running])
        for row, (lane, each) in enumerate(running):
            lane.tokens.append(each.next)
            if not self._take(each, self._llama.logits(row)):
                lane.running = None
                yield each.finished()

    def _truth(self, prompt: Prompt, trial: Trial) -> list[int]:
        """Return the tokens to score: the healed word, the truth, and an end token; or no tokens without a truth."""
        if trial.truth is None:
            return []
        return [*self._llama.encode(prompt.healed_text + trial.truth), self._end]

    def _score(self, lane: _Lane, prompt: Prompt, truth: list[int], logits: NDArray[np.float32]) -> Truth:
        """Return the score of the truth after the prompt, in nats.

        `logits` are those after the prompt without its healed word. For a token of the healed word, the probability is
        computed among the tokens that agree with the word. Afterwards, `lane` contains the truth.
        """
        self._cut(lane, len(prompt.tokens))
        expected = prompt.healed_text.encode("utf-8", "replace")
        nats, grain = 0.0, self._llama.scored_at_once
        for at, token in enumerate(truth):
            if at:
                if (row := (at - 1) % grain) == 0:
                    self._fill(lane, truth[at - 1 : at - 1 + grain], grain)
                logits = self._llama.logits(row)
            nats += surprise_of(self._llama.index.mask(logits, expected), token)
            expected = left_to_write(expected, self._llama.piece(token))
        return Truth(nats, len(truth))

    def _fill(self, lane: _Lane, tokens: Sequence[int], wanted: int = MIN_ROWS) -> None:
        """Append `tokens` to `lane`, and compute logits for the last `wanted` of them."""
        for rows in prompt_rows(lane.id, len(lane.tokens), tokens, self._llama.n_ubatch, wanted, self._llama.block):
            self._decode(rows)
            lane.tokens += [row.token for row in rows]

    def _cut(self, lane: _Lane, length: int) -> None:
        """Keep only the first `length` tokens of `lane`."""
        if length < len(lane.tokens):
            kept = lane.tokens[:length]
            lane.read = min(lane.read, length)
            if self._llama.truncate(lane.id, length):
                lane.tokens = kept
                return
            self._llama.truncate(lane.id, 0)  # a recurrent model cannot remove part of a sequence, so remove all of it
            lane.tokens = []
            self._fill(lane, kept)

    def _take(self, each: _Running, logits: NDArray[np.float32]) -> bool:
        """Add the most probable token to a generation. Return whether the generation continues."""
        logits = self._llama.index.mask(logits, each.expected)
        token, surprise = likeliest(logits)
        if each.tokens == 0 and each.reading is not None:
            each.reading = with_first(each.reading, logits)
        each.tokens += 1
        each.surprises.append(round(surprise, 5))
        if self._ends(token):
            each.ended = True
            each.ends.append(len(each.text))
            return False
        each.expected = left_to_write(each.expected, self._llama.piece(token))
        each.text += each.decoder.decode(token)
        each.ends.append(len(each.text))
        each.next = token
        return each.tokens < each.trial.stop.tokens and not each.trial.stop.reached(each.text)

    def _share(self, lane: _Lane, tokens: list[int]) -> int:
        """Make `lane` contain the longest prefix of `tokens` that any lane contains, and return the prefix's length."""
        held = {other.id: reusable(other.tokens, other.read, tokens, self._llama.block) for other in self._lanes}
        best = max(self._lanes, key=lambda other: held[other.id])
        if held[best.id] < held[lane.id] + WORTH_COPYING:
            best = lane
        length = held[best.id]
        if best is not lane:
            self._llama.truncate(lane.id, 0)
            length = self._llama.copy(best.id, lane.id, length)
        elif not self._llama.truncate(lane.id, length):  # a recurrent model cannot remove part of a sequence
            self._llama.truncate(lane.id, 0)
            length = 0
        lane.tokens, lane.read = tokens[:length], length
        return length

    def _decode(self, rows: Sequence[Row]) -> None:
        match self._llama.decode(rows):
            case "aborted":
                raise Aborted
            case "full":
                raise EngineFailed(
                    f"{len(self._lanes)} sequences no longer fit into a context of {self._llama.n_ctx} tokens"
                )


def surprise_of(logits: NDArray[np.float32], token: int) -> float:
    """Return -ln P of `token`, in nats."""
    likely, surprise = likeliest(logits)
    return surprise + float(logits[likely]) - float(logits[token])
