"""The KV cache: a record of the evaluated tokens, so that a request evaluates only new ones.

Every *slot* (a document's plain branch, its retrieved branch) has a sequence in llama.cpp's KV cache. To evaluate a
prompt in a slot, `KvCache` finds the sequence that shares the longest prefix with the prompt. It copies the cells of
that prefix to the slot's sequence, removes all other tokens from it, and evaluates the rest of the prompt. This rule
covers a keystroke (the slot's own sequence shares the longest prefix), a decision to retrieve (the plain branch shares
it), two clients with the same file, and the return to an earlier document.

If a new slot needs a sequence and none is free, the least recently used slot is removed.

With `SavedStates`, cells are also saved to disk, and loaded when no sequence contains enough of a prompt.

Rounding can depend on the number of tokens that are evaluated together. So of a sequence, only the cells of whole
blocks are used again (`policy.engine.worker.batching`), whether they are in memory or on disk. The logits then depend
only on the prompt.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from indexer.secrets import secret_spans
from policy.engine.worker.batching import MIN_ROWS, MULTIPLE, Row, prompt_rows, reusable, whole_blocks
from policy.errors import EngineFailed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from policy.engine.worker.llama import Llama
    from policy.engine.worker.saved_state import SavedStates

BATCH_SECONDS = 0.08  # the time of a batch while the user types; at 8 keys per second, a key comes every 0.125 s
MEASURED_ROWS = 8  # a smaller batch takes more time for each token, so its time is not used for the next size
CALM_SECONDS = 1.0  # seconds after an interruption until the batches are large again
WORTH_COPYING = 16  # tokens; copying a sequence takes as long as evaluating this many
WORTH_LOADING = 64  # tokens; evaluating this many takes much longer than loading a state (about 20 ms)


class Aborted(Exception):
    """The evaluation was aborted. The tokens that it has finished remain in the cache."""


@dataclass(slots=True)
class _Sequence:
    id: int
    tokens: list[int] = field(default_factory=list)
    read: int = 0  # the first `read` tokens were evaluated as a prompt; the others were generated
    used_at: int = 0
    private: bool = False  # whether the cells must not be saved to disk


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The result of evaluating a prompt: the logits after its last tokens.

    `rows` has one view of shape (n_vocab,) for each of these tokens, in their order. `evaluated` is the number of
    tokens that were evaluated, and `milliseconds` the time for them.
    """

    rows: tuple[NDArray[np.float32], ...]
    evaluated: int
    milliseconds: float

    @property
    def logits(self) -> NDArray[np.float32]:
        """The logits after the last token."""
        return self.rows[-1]


class KvCache:
    """The sequences of one llama.cpp context, by the names of their slots. `saved` has the states on disk, if any."""

    def __init__(self, context: Llama, saved: SavedStates | None = None) -> None:
        self._context = context
        self._saved = saved if context.truncates else None
        self._slots: dict[str, _Sequence] = {}
        self._free = list(range(context.n_seq))[::-1]
        self._clock = count(1)
        self.read_tokens = self.written_tokens = 0  # the numbers of tokens evaluated as prompts, and one by one
        self.read_seconds = 0.0  # the time for the tokens of prompts
        self._token_seconds = 0.0  # the time for one token in the last batch of at least `MEASURED_ROWS`
        self._aborted_at = -math.inf

    def evaluate(
        self,
        slot: str,
        tokens: Sequence[int],
        grain: int | None = None,
        rows: int = MIN_ROWS,
        *,
        private: bool = False,
    ) -> Evaluated:
        """Make `slot` contain exactly `tokens`, and return the logits after the last `rows` of them (at least two).

        If `private` is true, the cells of `slot` are not saved to disk.

        At most `grain` tokens are evaluated at a time, so an interruption loses at most that many. Within
        `CALM_SECONDS` after an interruption, the first batch is small. Raises `Aborted`, after which the slot contains
        the tokens evaluated so far, and `EngineFailed` if the prompt does not fit into the context.
        """
        if not 0 < len(tokens) < self._context.n_ctx_seq:
            raise EngineFailed(
                f"a prompt of {len(tokens)} tokens does not fit into a context of {self._context.n_ctx_seq}"
            )
        started = time.perf_counter()
        tokens = list(tokens)
        sequence = self._sequence(slot)
        sequence.private = private
        # The last tokens are evaluated even if they are in the cache, because the caller needs the logits after them.
        rows = min(max(rows, MIN_ROWS), len(tokens))
        usable = whole_blocks(len(tokens) - rows, self._context.block)
        reused = min(self._share(sequence, tokens), usable)
        if self._saved:
            reused = self._load(self._saved, sequence, tokens, reused, usable)
        self._truncate(sequence, reused)
        reused = len(sequence.tokens)
        self._prefill(sequence, tokens[reused:], grain or self._context.n_ubatch, rows)
        logits = tuple(self._context.logits(row - rows) for row in range(rows))
        return Evaluated(logits, len(tokens) - reused, (time.perf_counter() - started) * 1e3)

    def missing(self, tokens: Sequence[int]) -> int:
        """Return the number of `tokens`, a prompt, that would have to be evaluated.

        These are the tokens that neither a slot nor a saved state contains.
        """
        prompt = list(tokens)
        reused = max((self._shared(sequence, prompt) for sequence in self._slots.values()), default=0)
        if self._saved and (length := self._saved.find(prompt)[1]) >= reused + WORTH_LOADING:
            reused = whole_blocks(length, self._context.block)
        return len(prompt) - reused

    def cut(self, slot: str, length: int) -> bool:
        """Keep only the first `length` tokens of `slot`.

        If the model cannot remove part of a sequence, remove all tokens and return False.
        """
        sequence = self._slots[slot]
        self._truncate(sequence, length)
        return len(sequence.tokens) == length

    def extend(self, slot: str, token: int) -> NDArray[np.float32]:
        """Append one token to `slot` and return the logits after it, a view that the next evaluation overwrites.

        Raises the same errors as `evaluate`, after which the slot is unchanged.
        """
        return self.extend_all({slot: token})[0]

    def extend_all(self, tokens: Mapping[str, int]) -> list[NDArray[np.float32]]:
        """Append one token to each slot, in one batch. Return the logits after each token, in the order of `tokens`.

        The logits are views that the next evaluation overwrites. Raises the same errors as `evaluate`, after which the
        slots are unchanged.
        """
        sequences = [self._slots[slot] for slot in tokens]
        if any(len(sequence.tokens) + 1 >= self._context.n_ctx_seq for sequence in sequences):
            raise EngineFailed("the context is full")
        rows = [
            Row(token, len(sequence.tokens), sequence.id, logits=True)
            for sequence, token in zip(sequences, tokens.values(), strict=True)
        ]
        if not self._decode(rows):
            for sequence in sequences:
                self._context.truncate(sequence.id, len(sequence.tokens))
            self._aborted_at = time.monotonic()
            raise Aborted
        self.written_tokens += len(rows)
        for sequence, token in zip(sequences, tokens.values(), strict=True):
            sequence.tokens.append(token)
        return [self._context.logits(number) for number in range(len(rows))]

    def save(self, interrupted: Callable[[], bool]) -> bool:
        """Save the state of one slot whose prompt is not saved yet. Return whether another call may save another one.

        `interrupted` says that a request waits. If it returns True, nothing is saved.
        """
        if self._saved is None or not self._saved.usable:
            return False
        for slot, sequence in self._slots.items():
            tokens = sequence.tokens[: whole_blocks(sequence.read, self._context.block)]
            if interrupted():
                return False
            if sequence.private or len(tokens) <= WORTH_LOADING:
                continue
            if self._saved.find(tokens)[1] <= len(tokens) - WORTH_LOADING:
                if self._has_secret(tokens):
                    sequence.private = True
                    continue
                name = slot.partition("/")[2]  # without the name of the client, which the next one does not have
                return self._saved.save(name, tokens, self._context.state(sequence.id), interrupted)
        return False

    def _has_secret(self, tokens: Sequence[int]) -> bool:
        text = b"".join(map(self._context.piece, tokens)).decode("utf-8", "replace")
        return any(True for _ in secret_spans(text))

    def holds(self, slot: str, tokens: Sequence[int]) -> bool:
        """Return whether `slot` contains exactly `tokens`."""
        sequence = self._slots.get(slot)
        return sequence is not None and sequence.tokens == list(tokens)

    def fork(self, slot: str, target: str) -> None:
        """Make `target` contain the same tokens as `slot`."""
        self.forget(target)
        source, sequence = self._slots[slot], self._sequence(target)
        self._context.copy(source.id, sequence.id, len(source.tokens))
        sequence.tokens, sequence.read, sequence.private = list(source.tokens), source.read, source.private

    def forget_all(self, prefix: str) -> None:
        """Remove every slot whose name begins with `prefix`."""
        for slot in [slot for slot in self._slots if slot.startswith(prefix)]:
            self.forget(slot)

    def forget(self, slot: str) -> None:
        """Free the sequence and the cells of `slot`."""
        if sequence := self._slots.pop(slot, None):
            self._context.truncate(sequence.id, 0)
            self._free.append(sequence.id)

    def _sequence(self, slot: str) -> _Sequence:
        sequence = self._slots.get(slot)
        if sequence is None:
            if not self._free:
                self._evict()
            sequence = self._slots[slot] = _Sequence(self._free.pop())
        sequence.used_at = next(self._clock)
        return sequence

    def _share(self, sequence: _Sequence, tokens: list[int]) -> int:
        """Return the number of the first `tokens` whose cells in `sequence` can be used.

        If another sequence contains a longer prefix, the function first copies that prefix to `sequence`.
        """
        own = self._shared(sequence, tokens)
        if len(tokens) < own + WORTH_COPYING:  # so few tokens are missing, as after a keystroke, that no copy helps
            return own
        best = max(self._slots.values(), key=lambda other: self._shared(other, tokens))
        length = self._shared(best, tokens)
        if length < own + WORTH_COPYING:
            return own
        self._truncate(sequence, 0)
        length = self._context.copy(best.id, sequence.id, length)
        sequence.tokens, sequence.read = best.tokens[:length], length
        return length

    def _load(self, saved: SavedStates, sequence: _Sequence, tokens: list[int], reused: int, usable: int) -> int:
        """Load the state with the longest prefix of `tokens`, at most `usable` of them, if that saves time.

        `reused` is the number of tokens whose cells in `sequence` can be used. Return this number after the call.
        """
        if usable < reused + WORTH_LOADING:
            return reused
        file, length = saved.find(tokens)
        length = whole_blocks(min(length, usable), self._context.block)
        if file is None or length < reused + WORTH_LOADING or (state := saved.load(file)) is None:
            return reused
        self._truncate(sequence, 0)
        if not self._context.set_state(sequence.id, state.data):
            saved.discard(file)
            return 0
        self._context.truncate(sequence.id, length)  # the state may also have cells after its tokens
        sequence.tokens, sequence.read = list(state.tokens[:length]), length
        return length

    def _shared(self, sequence: _Sequence, tokens: list[int]) -> int:
        return reusable(sequence.tokens, sequence.read, tokens, self._context.block)

    def _truncate(self, sequence: _Sequence, length: int) -> None:
        if length >= len(sequence.tokens):
            return
        if not self._context.truncate(sequence.id, length):
            # Recurrent and hybrid models cannot remove part of a sequence, so all of it is removed.
            self._context.truncate(sequence.id, 0)
            length = 0
        del sequence.tokens[length:]
        sequence.read = min(sequence.read, length)

    def _first_grain(self, largest: int) -> int:
        """Return the number of tokens in the first batch of a prompt, at most `largest`.

        After an interruption, another one is likely, because the user types. A batch then takes about `BATCH_SECONDS`,
        so that the reading of a long prompt makes progress between two keys.
        """
        if time.monotonic() - self._aborted_at > CALM_SECONDS or not self._token_seconds:
            return largest
        return min(largest, max(1, int(BATCH_SECONDS / self._token_seconds / MULTIPLE)) * MULTIPLE)

    def _prefill(self, sequence: _Sequence, tokens: list[int], largest: int, wanted: int) -> None:
        """Append `tokens`, in batches of at most `largest` tokens.

        Each batch has up to twice as many tokens as the one before. Larger batches take less time for each token, and
        an interruption loses about as much time as was spent before.
        """
        grain, left = self._first_grain(largest), tokens
        while left:
            rows = next(prompt_rows(sequence.id, len(sequence.tokens), left, grain, wanted, self._context.block))
            grain, left = min(2 * grain, largest), left[len(rows) :]
            start, part = len(sequence.tokens), [row.token for row in rows]
            began = time.perf_counter()
            done = self._decode(rows)
            self.read_seconds += time.perf_counter() - began
            if not done:
                finished = max(0, self._context.end_of(sequence.id) - start)
                self.read_tokens += finished
                sequence.tokens.extend(part[:finished])
                sequence.read = len(sequence.tokens)
                # Cells of an unfinished micro-batch may be left after the last valid position.
                self._context.truncate(sequence.id, len(sequence.tokens))
                self._aborted_at = time.monotonic()
                raise Aborted
            if len(part) >= MEASURED_ROWS:
                self._token_seconds = (time.perf_counter() - began) / len(part)
            self.read_tokens += len(part)
            sequence.tokens.extend(part)
            sequence.read = len(sequence.tokens)

    def _decode(self, rows: Sequence[Row]) -> bool:
        """Evaluate `rows`. Return False if the evaluation was aborted."""
        outcome = self._context.decode(rows)
        if outcome == "full":  # the limit `n_ctx_seq` should prevent this
            raise EngineFailed(f"{len(rows)} more tokens do not fit into a context of {self._context.n_ctx_seq}")
        return outcome == "ok"

    def _evict(self) -> None:
        """Remove the least recently used slot."""
        self.forget(min(self._slots, key=lambda slot: self._slots[slot].used_at))
