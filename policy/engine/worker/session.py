"""What the worker does with a model: read up to the decision, generate behind it, warm up for either.

Every call builds its prompt anew and leaves it to the KV cache to find out what of it is already there. That is why
nothing has to be carried from one call to the next, and why an abstained request evaluates L, R and the markers once:
the prompt to generate from begins with the prompt that was read.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from policy.engine.messages import ModelInfo, PromptStats, Reading, Trial, Tried, UsedChunk
from policy.engine.speed import LINE_TOKENS, Others, Speed
from policy.engine.worker.batch import Batch
from policy.engine.worker.cache import Evaluated, KvCache
from policy.engine.worker.decoding import (
    Chosen,
    Start,
    candidates,
    continuation,
    likeliest,
    softmax,
    start_of,
    with_first,
)
from policy.engine.worker.llama import Llama
from policy.engine.worker.metadata import budgets_of, choose_layout
from policy.engine.worker.recall import Recall, Recalled
from policy.prompting.healing import left_to_write
from policy.prompting.prompt import Prompt, PromptBuilder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.model import Chunk, Cursor

# Tokens after which a model of code has nothing to add to a blank, by their names: many files declare one alone.
ENDINGS = (
    "<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|im_start|>", "<|im_end|>", "<|EOT|>",
    "<fim_pad>", "<file_sep>", "<repo_name>", "<reponame>", "<filename>", "<EOT>", "</s>", "<｜end▁of▁sentence｜>",
)  # fmt: skip
RESERVED_TOKENS = 320  # of a sequence: the longest generation, and the markers
_MEASURED_TOKENS = 128
WARM_GRAIN = 16  # tokens that an interrupted warming up may lose


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of a generation, or of one of its candidates, and how many tokens that has so far.

    `model_ms`: milliseconds inside llama.cpp, since the generation began. `surprises`: -ln P, in nats, of the
    candidate's tokens since its last piece.
    """

    text: str
    tokens: int
    model_ms: float
    candidate: int = 0
    surprises: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """The end of a generation: by the model (`ended`) or by the limit. `model_ms` as of `Piece`."""

    tokens: int
    ended: bool
    model_ms: float


class CompletionModel:
    """One model with its prompt builder and its KV cache.

    `layout`, unless empty, and `budgets`, by name, override what the model's metadata says. Raises `ModelInvalid`
    when there is no way to complete code with this model.
    """

    def __init__(self, llama: Llama, layout: str, budgets: Mapping[str, int]) -> None:
        self._llama = llama
        self._cache = KvCache(llama)
        self._recall = Recall()
        vocabulary = llama.vocabulary()
        chosen = choose_layout(layout or llama.metadata.get("repoformer.layout", ""), vocabulary)
        wanted = replace(budgets_of(llama.metadata), **budgets)
        self._builder = PromptBuilder(chosen, vocabulary, llama, wanted.fit(llama.n_ctx_seq - RESERVED_TOKENS))
        self._shrunk = self._builder.budgets != wanted
        self._cc = vocabulary.ids.get("cc") if chosen.selective else None
        markers = {token for role, token in vocabulary.ids.items() if role != "bos"}
        self._endings = markers | {token for name in ENDINGS if (token := llama.special(name)) is not None}

    def info(self) -> ModelInfo:
        """What the server needs to know of the model."""
        metadata = self._llama.metadata
        return ModelInfo(
            name=metadata.get("general.name", "unnamed model"),
            layout=self._builder.layout.name,
            selective=self._builder.layout.selective,
            budgets=self._builder.budgets,
            shrunk=self._shrunk,
            context_size=self._llama.n_ctx,
            gpu_offload=self._llama.gpu_offload,
            metadata={key: value for key, value in metadata.items() if not key.startswith("tokenizer.")},
        )

    def warm_up(self) -> None:
        """Evaluate a batch and a single token, so that a build that crashes at its first decode does so now."""
        tokens = self._llama.encode("def warm_up():\n" * 8)
        self._cache.evaluate("warm-up", tokens)
        self._cache.extend("warm-up", tokens[0])
        self._cache.forget("warm-up")
        _ = self._llama.index  # takes a fraction of a second, which no request should wait for

    def measure(self) -> Speed:
        """How fast tokens are read and written, by the quicker half of what is tried: other work slows some of it.

        Takes a second or two on a processor.
        """
        tokens = self._llama.encode("def measured(first, second):\n    return first * second\n\n" * 12)
        half = min(len(tokens), _MEASURED_TOKENS) // 2
        reads, writes, others = [], [], Others()
        try:
            for end in (half, 2 * half):
                result = self._cache.evaluate("measured", tokens[:end])
                reads.append(result.milliseconds / result.evaluated)
            for _ in range(LINE_TOKENS):
                started = time.perf_counter()
                self._cache.extend("measured", tokens[0])
                writes.append((time.perf_counter() - started) * 1e3)
        finally:
            self._cache.forget("measured")
        return Speed(min(reads), sorted(writes)[LINE_TOKENS // 4], others.share())

    def read(self, slot: str, cursor: Cursor, grain: int | None = None) -> Reading:
        """Evaluate the prompt of an abstention, which has the decision on the way.

        The token behind the decision goes into the same batch: to abstain takes nothing more, and to retrieve has cost
        one token.
        """
        started = time.perf_counter()
        selective = self._builder.layout.selective
        prompt = self._builder.abstain(cursor)
        built = time.perf_counter()
        known = self._recall.of(slot, prompt.whole)
        if known.reading is not None:
            return replace(known.reading, evaluated_tokens=0, prompt_ms=(built - started) * 1e3, prefill_ms=0.0)
        result, start = self._evaluate(slot, prompt, grain)
        first = self._llama.index.mask(start.logits, start.expected)
        if not known.said:
            known.base, known.expected, known.said = start.base, start.expected, [likeliest(first)]
        spent = (time.perf_counter() - built) * 1e3
        decision = result.rows[-2] if selective else result.logits
        reading = with_first(self._judge(decision, len(prompt.whole), result.evaluated, spent), first)
        known.reading = replace(reading, prompt_ms=(built - started) * 1e3)
        return known.reading

    def warm(self, slot: str, cursor: Cursor, chunks: Sequence[Chunk] | None) -> tuple[UsedChunk, ...]:
        """Evaluate what a request at `cursor` is going to need first, little by little: it may be interrupted.

        Returns the chunks that have a place in that prompt. With chunks, what `slot` holds stays as it was until all is
        read, where there are more than two sequences.
        """
        if chunks is None:
            self.read(slot, cursor, WARM_GRAIN)
            return ()
        prompt = self._builder.retrieve(cursor, chunks)
        beside = f"{slot} to come" if self._llama.n_seq > 2 else slot
        self._cache.evaluate(beside, prompt.whole, WARM_GRAIN)
        self._cache.rename(beside, slot)
        return used_chunks(prompt, chunks)

    def generate(
        self, slot: str, cursor: Cursor, chunks: Sequence[Chunk] | None, max_tokens: int, count: int = 1
    ) -> Iterator[PromptStats | Piece | Done]:
        """Greedy decoding, text as it comes; beside it up to `count` - 1 other candidates.

        `chunks` None abstains; a list retrieves. Raises `policy.engine.worker.cache.Aborted` when stopped from outside.
        """
        prompt, stats = self._prompt(cursor, chunks)
        if count > 1:
            return self._several(slot, prompt, stats, max_tokens, count)
        return self._one(slot, prompt, stats, max_tokens)

    def _one(
        self, slot: str, prompt: Prompt, stats: PromptStats, max_tokens: int
    ) -> Iterator[PromptStats | Piece | Done]:
        known = self._recall.of(slot, prompt.whole)
        if known.said:
            yield stats
        writer: _Writer | None = None
        spent = _Spent(self._llama)
        count = 0
        for step in self._said_and_going_on(slot, prompt, known, max_tokens):
            if isinstance(step, Evaluated):
                yield replace(stats, evaluated_tokens=step.evaluated, prefill_ms=step.milliseconds)
                continue
            writer = writer or _Writer(self._llama, len(known.expected))
            count += 1
            if self._ends(step.token):
                yield Done(count, True, spent.milliseconds)
                return
            if text := writer.write(step):
                yield Piece(text, count, spent.milliseconds, surprises=writer.take_surprises())
        yield Done(count, False, spent.milliseconds)

    def _several(
        self, slot: str, prompt: Prompt, stats: PromptStats, max_tokens: int, count: int
    ) -> Iterator[PromptStats | Piece | Done]:
        spent = _Spent(self._llama)
        result, start = self._evaluate(slot, prompt)
        yield replace(stats, evaluated_tokens=result.evaluated, prefill_ms=result.milliseconds)
        writers: dict[int, _Writer] = {}
        count = min(count, self._llama.n_seq - 1)
        for step in candidates(self._cache, slot, start, self._llama, count, self._ends):
            writer = writers.setdefault(step.candidate, _Writer(self._llama, len(start.expected)))
            if writer.tokens >= max_tokens:
                break
            if text := "".join(writer.write(chosen) for chosen in step.chosen if not self._ends(chosen.token)):
                yield Piece(text, writer.tokens, spent.milliseconds, step.candidate, writer.take_surprises())
        tokens = max(writer.tokens for writer in writers.values())
        yield Done(tokens, tokens < max_tokens, spent.milliseconds)

    def _evaluate(self, slot: str, prompt: Prompt, grain: int | None = None) -> tuple[Evaluated, Start]:
        """Make `slot` hold a prompt, with as much of its healed word as the model would write itself.

        Raises as `KvCache.evaluate` does.
        """
        result = self._cache.evaluate(slot, prompt.whole, grain, len(prompt.healed) + 1)
        start = start_of(prompt, result.rows, self._llama)
        if len(start.base) < len(prompt.whole):
            start = replace(start, logits=start.logits.copy())  # a view, which the next evaluation overwrites
            if not self._cache.cut(slot, len(start.base)):  # recurrent models cannot forget a part
                self._cache.evaluate(slot, start.base)
        return result, start

    def _said_and_going_on(
        self, slot: str, prompt: Prompt, known: Recalled, limit: int
    ) -> Iterator[Chosen | Evaluated]:
        """Up to `limit` tokens: those that were said of this prompt before, then new ones, which are noted."""
        said = known.said
        yield from said[:limit]
        left = limit - len(said)
        tokens = [chosen.token for chosen in said]
        if left <= 0 or (tokens and self._ends(tokens[-1])):
            return
        if tokens and self._cache.holds(slot, [*known.base, *tokens[:-1]]):
            start = Start(known.base, self._cache.extend(slot, tokens[-1]), self._unwritten(known))
        else:
            result, start = self._evaluate(slot, prompt)
            known.base, known.expected = start.base, start.expected
            yield result
            for token in tokens:  # one by one, as it was: see `KvCache.evaluate`
                start = replace(start, logits=self._cache.extend(slot, token))
            start = replace(start, expected=self._unwritten(known))
        for chosen in islice(continuation(self._cache, slot, start, self._llama), left):
            said.append(chosen)
            yield chosen

    def _unwritten(self, known: Recalled) -> bytes:
        """What of the healed word the tokens that were said have not written yet."""
        expected = known.expected
        for chosen in known.said:
            if not expected:
                break
            expected = left_to_write(expected, self._llama.piece(chosen.token))
        return expected

    def _prompt(self, cursor: Cursor, chunks: Sequence[Chunk] | None) -> tuple[Prompt, PromptStats]:
        started = time.perf_counter()
        prompt = self._builder.abstain(cursor) if chunks is None else self._builder.retrieve(cursor, chunks)
        return prompt, _stats(prompt, chunks, 0, (time.perf_counter() - started) * 1e3, 0.0)

    def _ends(self, token: int) -> bool:
        """Whether the model has said all it has to say with `token`."""
        return token in self._endings or self._llama.ends_text(token)

    def try_all(self, trials: Sequence[Trial]) -> Iterator[tuple[int, Tried]]:
        """Generate for all `trials` side by side, in an empty cache; see `policy.engine.worker.batch`."""
        self.forget("")
        return Batch(self._llama, self._builder, self._judge, self._ends, _told, self._llama.end).run(trials)

    def _judge(self, logits: NDArray[np.float32], prompt_tokens: int, evaluated: int, milliseconds: float) -> Reading:
        """What the distribution behind the decision's prompt says; what would be generated is not known yet."""
        return Reading(
            p_cc=None if self._cc is None else float(softmax(logits)[self._cc]),
            cc_is_top=self._cc is not None and int(logits.argmax()) == self._cc,
            first_p=None,
            first_entropy=None,
            prompt_tokens=prompt_tokens,
            evaluated_tokens=evaluated,
            prompt_ms=0.0,
            prefill_ms=milliseconds,
        )

    def forget(self, prefix: str) -> None:
        """Give back the cells of every slot whose name begins with `prefix` (a closed document)."""
        self._cache.forget_all(prefix)
        self._recall.forget_all(prefix)


class _Spent:
    """How long llama.cpp has been at work since this was made."""

    def __init__(self, llama: Llama) -> None:
        self._llama = llama
        self._before = llama.busy

    @property
    def milliseconds(self) -> float:
        return (self._llama.busy - self._before) * 1e3


class _Writer:
    """Makes text of tokens, without the first `skipped` bytes, which the document has already.

    A character may be spread over several tokens: what is not whole yet is kept back.
    """

    def __init__(self, llama: Llama, skipped: int) -> None:
        self.tokens = 0
        self._llama = llama
        self._skipped = skipped
        self._surprises: list[float] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, chosen: Chosen) -> str:
        self.tokens += 1
        self._surprises.append(round(chosen.surprise, 5))
        piece = self._llama.piece(chosen.token)
        new = piece[self._skipped :]
        self._skipped -= len(piece) - len(new)
        return self._decoder.decode(new)

    def take_surprises(self) -> tuple[float, ...]:
        """-ln P of the tokens since the last call."""
        taken, self._surprises = tuple(self._surprises), []
        return taken


def longest_sequence(budgets: Mapping[str, int], metadata: dict[str, str]) -> int:
    """How many tokens a sequence of a model with this metadata has to hold, where `budgets` override its own."""
    return replace(budgets_of(metadata), **budgets).tokens + RESERVED_TOKENS


def _stats(
    prompt: Prompt, chunks: Sequence[Chunk] | None, evaluated: int, prompt_ms: float, prefill_ms: float
) -> PromptStats:
    return PromptStats(
        prompt_tokens=len(prompt.whole),
        evaluated_tokens=evaluated,
        context_tokens=prompt.context_tokens,
        left_trimmed=prompt.left_trimmed,
        right_trimmed=prompt.right_trimmed,
        chunks=used_chunks(prompt, chunks or ()),
        prompt_ms=prompt_ms,
        prefill_ms=prefill_ms,
    )


def _told(prompt: Prompt, trial: Trial, evaluated: int, milliseconds: float) -> PromptStats:
    return _stats(prompt, trial.chunks, evaluated, 0.0, milliseconds)


def used_chunks(prompt: Prompt, offered: Sequence[Chunk]) -> tuple[UsedChunk, ...]:
    """Which of the offered chunks stand in the prompt, and where the last was cut."""
    return tuple(
        UsedChunk(index, chunk.end_line) for index, (chunk, _) in enumerate(zip(prompt.chunks, offered, strict=False))
    )
