"""A model for completions in the worker: read up to the decision, generate after it, evaluate in advance.

Every call builds its whole prompt, and the KV cache finds the part that is already evaluated. So no state has to be
passed from one call to the next. A generation after an abstention does not evaluate L, R (the text before and after the
cursor) and the markers again, because its prompt begins with the prompt of the reading.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from policy.engine.messages import Missing, ModelInfo, PromptStats, Reading, Trial, Tried, UsedChunk, Work
from policy.engine.speed import LINE_TOKENS, OtherProcesses, Speed
from policy.engine.worker.batch import Batch
from policy.engine.worker.cache import Evaluated, KvCache
from policy.engine.worker.decoding import (
    Chosen,
    Start,
    TextDecoder,
    candidates,
    continuation,
    likeliest,
    probability,
    start_of,
    with_first,
)
from policy.engine.worker.llama import Llama
from policy.engine.worker.metadata import choose_layout
from policy.engine.worker.prompts import Prompts, SlotPrompt
from policy.engine.worker.recall import Recall, Recalled
from policy.prompting.healing import left_to_write
from policy.prompting.prompt import Budgets, Prompt
from policy.tracing import span

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.model import Chunk, Cursor
    from policy.engine.worker.saved_state import SavedStates

# Names of the tokens with which models of code end a completion. Many GGUF files declare only one of these as an end
# token.
ENDINGS = (
    "<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|im_start|>", "<|im_end|>", "<|EOT|>",
    "<fim_pad>", "<file_sep>", "<repo_name>", "<reponame>", "<filename>", "<EOT>", "</s>", "<｜end▁of▁sentence｜>",
)  # fmt: skip
RESERVED_TOKENS = 320  # cells of a sequence that the budgets leave free for the generated tokens and the markers
_MEASURED_TOKENS = 128  # tokens of the prompt that `measure` reads
WARM_GRAIN = 32  # tokens; an interruption of `warm` loses at most this many


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the text of a candidate, and the number of the candidate's tokens so far.

    `model_ms` is the time inside llama.cpp since the generation began, in milliseconds. `surprises` has -ln P, in nats,
    of the candidate's tokens since its last piece.
    """

    text: str
    tokens: int
    model_ms: float
    candidate: int = 0
    surprises: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """The end of a generation, by the model (`ended`) or by the token limit. `model_ms` is as in `Piece`."""

    tokens: int
    ended: bool
    model_ms: float


class CompletionModel:
    """A model with its prompt builder and its KV cache.

    `layout`, unless empty, and `budgets` (by name) override the model's metadata. `saved` has the states on disk, if
    any. For `parts`, see `prompts.Prompts`. Raises `ModelInvalid` if this model cannot complete code.
    """

    def __init__(
        self,
        llama: Llama,
        layout: str,
        budgets: Mapping[str, int],
        saved: SavedStates | None = None,
        *,
        parts: int = 1,
    ) -> None:
        self._llama = llama
        self._cache = KvCache(llama, saved)
        self._recall = Recall()
        vocabulary = llama.vocabulary()
        chosen = choose_layout(layout or llama.metadata.get("repoformer.layout", ""), vocabulary)
        wanted = replace(Budgets.from_metadata(llama.metadata), **budgets)
        fitting = wanted.fit(llama.n_ctx_seq - RESERVED_TOKENS)
        self._prompts = Prompts(chosen, vocabulary, llama, fitting, parts, self._cache)
        self._builder = self._prompts.builder
        self._shrunk = fitting != wanted
        self._cc = vocabulary.ids.get("cc") if chosen.selective else None
        markers = {token for role, token in vocabulary.ids.items() if role != "bos"}
        self._endings = markers | {token for name in ENDINGS if (token := llama.special(name)) is not None}

    def info(self) -> ModelInfo:
        """Return the information about the model for the server."""
        return ModelInfo(
            name=self._llama.name,
            layout=self._builder.layout.name,
            selective=self._builder.layout.selective,
            budgets=self._builder.budgets,
            shrunk=self._shrunk,
            context_size=self._llama.n_ctx,
            gpu_offload=self._llama.gpu_offload,
            metadata=self._llama.metadata,
        )

    def warm_up(self) -> None:
        """Evaluate batches and a single token. A build of llama.cpp that crashes on this machine crashes now."""
        _ = self._llama.block
        tokens = self._llama.encode("def warm_up():\n")
        self._cache.evaluate("warm-up", tokens)
        self._cache.extend("warm-up", tokens[0])
        self._cache.forget("warm-up")
        _ = self._llama.index  # computed now, so that no request waits the fraction of a second that this takes

    def work(self) -> Work:
        """Return what this model has done since it was loaded."""
        cache = self._cache
        return Work(self._llama.busy, cache.read_seconds, cache.read_tokens, cache.written_tokens)

    def missing(
        self, cursor: Cursor, branches: Sequence[Sequence[Chunk] | None], queue_ms: float = 0.0, *, whole: bool = False
    ) -> Missing:
        """Return how many tokens of the prompts of a request at `cursor` are not in the cache.

        Each of the `branches` has the chunks in a prompt, or is None for a prompt without chunks.
        """
        prompts = [self._prompts.choose("", cursor, chunks, whole=whole).prompt for chunks in branches]
        return Missing(
            tuple(self._cache.missing(prompt.whole) for prompt in prompts),
            tuple(prompt.context_tokens for prompt in prompts),
            queue_ms,
        )

    def measure(self) -> Speed:
        """Return how fast the model reads and generates tokens. The call takes a second or two on a CPU.

        The result is the faster of two readings, and the lower quartile of the times of the generated tokens. Slower
        measurements may be slow because of other programs.
        """
        tokens = self._llama.encode("def measured(first, second):\n    return first * second\n\n" * 12)
        half = min(len(tokens), _MEASURED_TOKENS) // 2
        reads, writes, others = [], [], OtherProcesses()
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

    def read(self, slot: str, cursor: Cursor, *, whole: bool = False) -> Reading:
        """Evaluate the prompt of an abstention, and return the reading. If `whole` is true, it is never a short prompt.

        This prompt has one token after the decision. Because that token is evaluated in the same batch, an abstention
        can generate without a further evaluation. For a decision to retrieve, that token is evaluated in vain.
        """
        started = time.perf_counter()
        with span("prompt"):
            chosen = self._prompts.choose(slot, cursor, None, whole=whole)
        return self._read(chosen, (time.perf_counter() - started) * 1e3)

    def _read(self, chosen: SlotPrompt, prompt_ms: float = 0.0, grain: int | None = None) -> Reading:
        """Evaluate a prompt of an abstention. `prompt_ms` is the time in which it was built."""
        started = time.perf_counter()
        prompt = chosen.prompt
        recalled = self._recall.of(chosen.slot, prompt.whole)
        if recalled.reading is not None:
            return replace(recalled.reading, evaluated_tokens=0, prompt_ms=prompt_ms, prefill_ms=0.0)
        result, start = self._evaluate(chosen, grain)
        first = self._llama.index.mask(start.logits, start.expected)
        if not recalled.chosen:
            recalled.base, recalled.expected, recalled.chosen = start.base, start.expected, [likeliest(first)]
        spent = (time.perf_counter() - started) * 1e3
        decision = result.rows[-2] if self._builder.layout.selective else result.logits
        reading = with_first(self._reading_of(decision, len(prompt.whole), result.evaluated, spent), first)
        recalled.reading = replace(reading, prompt_ms=prompt_ms)
        return recalled.reading

    def warm(
        self, slot: str, cursor: Cursor, chunks: Sequence[Chunk] | None, *, whole: bool = True
    ) -> tuple[UsedChunk, ...]:
        """Evaluate in advance the prompt of a request at `cursor`. Return the chunks that fit into that prompt.

        If the request would use a short prompt, evaluate this one first, and then, if `whole` is true, the whole one.

        The batches are small, so that an interruption loses little. If there are chunks and more than two sequences,
        the prompt is evaluated in another slot, from which the cache copies it when a request uses it. Until then, the
        prompt with the older chunks stays in the cache, because the user may type on before the caller learns of the
        new prompt.
        """
        if chunks is not None and self._llama.n_seq > 2:
            slot = f"{slot} to come"
        chosen = self._prompts.choose(slot, cursor, chunks)
        self._warm(chosen, chunks)
        if chosen.short and whole:
            chosen = self._prompts.choose(slot, cursor, chunks, whole=True)
            self._warm(chosen, chunks)
        return used_chunks(chosen.prompt, chunks or ())

    def _warm(self, chosen: SlotPrompt, chunks: Sequence[Chunk] | None) -> None:
        prompt = chosen.prompt
        if chunks is None and self._recall.of(chosen.slot, prompt.whole).reading is None:
            self._read(chosen, grain=WARM_GRAIN)
        else:  # the KV cache may lack a prompt whose reading is recalled
            self._cache.evaluate(chosen.slot, prompt.whole, WARM_GRAIN, private=prompt.private)

    def generate(
        self,
        slot: str,
        cursor: Cursor,
        chunks: Sequence[Chunk] | None,
        max_tokens: int,
        count: int = 1,
        *,
        whole: bool = False,
    ) -> Iterator[PromptStats | Piece | Done]:
        """Generate greedily, with up to `count` - 1 other candidates.

        Yield the statistics of the prompt, then the text as it grows, then the end. If `chunks` is None, the prompt is
        that of an abstention, otherwise that of a retrieval. If `whole` is true, the prompt is never a short one.
        Raises `policy.engine.worker.cache.Aborted`.
        """
        started = time.perf_counter()
        with span("prompt"):
            chosen = self._prompts.choose(slot, cursor, chunks, whole=whole)
        stats = _stats(chosen.prompt, chunks, 0, (time.perf_counter() - started) * 1e3, 0.0, short=chosen.short)
        if count > 1:
            return self._several(chosen, stats, max_tokens, count)
        return self._one(chosen, stats, max_tokens)

    def _one(self, asked: SlotPrompt, stats: PromptStats, max_tokens: int) -> Iterator[PromptStats | Piece | Done]:
        recalled = self._recall.of(asked.slot, asked.prompt.whole)
        if recalled.chosen:
            yield stats
        candidate: _Candidate | None = None
        spent = _ModelTime(self._llama)
        count = 0
        for step in self._recalled_then_new(asked, recalled, max_tokens):
            if isinstance(step, Evaluated):
                yield replace(stats, evaluated_tokens=step.evaluated, prefill_ms=step.milliseconds)
                continue
            candidate = candidate or _Candidate(self._llama, len(recalled.expected))
            count += 1
            if self._ends(step.token):
                yield Done(count, True, spent.milliseconds)
                return
            if text := candidate.add(step):
                yield Piece(text, count, spent.milliseconds, surprises=candidate.take_surprises())
        yield Done(count, False, spent.milliseconds)

    def _several(
        self, asked: SlotPrompt, stats: PromptStats, max_tokens: int, count: int
    ) -> Iterator[PromptStats | Piece | Done]:
        spent = _ModelTime(self._llama)
        result, start = self._evaluate(asked)
        yield replace(stats, evaluated_tokens=result.evaluated, prefill_ms=result.milliseconds)
        texts: dict[int, _Candidate] = {}
        count = min(count, self._llama.n_seq - 1)
        for step in candidates(self._cache, asked.slot, start, self._llama, count, self._ends):
            candidate = texts.setdefault(step.candidate, _Candidate(self._llama, len(start.expected)))
            if candidate.tokens >= max_tokens:
                break
            if text := "".join(candidate.add(chosen) for chosen in step.chosen if not self._ends(chosen.token)):
                yield Piece(text, candidate.tokens, spent.milliseconds, step.candidate, candidate.take_surprises())
        tokens = max(candidate.tokens for candidate in texts.values())
        yield Done(tokens, tokens < max_tokens, spent.milliseconds)

    def _evaluate(self, asked: SlotPrompt, grain: int | None = None) -> tuple[Evaluated, Start]:
        """Evaluate a prompt in its slot, and return the evaluation and the start of the generation.

        The slot then contains the prompt and those tokens of the healed word that the model would generate itself.
        Raises the same errors as `KvCache.evaluate`.
        """
        slot, prompt = asked.slot, asked.prompt
        result = self._cache.evaluate(slot, prompt.whole, grain, len(prompt.healed) + 1, private=prompt.private)
        start = start_of(prompt, result.rows, self._llama)
        if len(start.base) < len(prompt.whole):
            start = replace(start, logits=start.logits.copy())  # the next evaluation overwrites the view
            if not self._cache.cut(slot, len(start.base)):  # a recurrent model cannot remove part of a sequence
                self._cache.evaluate(slot, start.base, private=prompt.private)
        return result, start

    def _recalled_then_new(self, asked: SlotPrompt, recalled: Recalled, limit: int) -> Iterator[Chosen | Evaluated]:
        """Yield up to `limit` tokens: those generated earlier for this prompt, then new ones, which are recorded.

        If the prompt is evaluated for this, also yield the evaluation.
        """
        known = recalled.chosen
        yield from known[:limit]
        left = limit - len(known)
        tokens = [chosen.token for chosen in known]
        if left <= 0 or (tokens and self._ends(tokens[-1])):
            return
        if tokens and self._cache.holds(asked.slot, [*recalled.base, *tokens[:-1]]):
            start = Start(recalled.base, self._cache.extend(asked.slot, tokens[-1]), self._rest_of_word(recalled))
        else:
            result, start = self._evaluate(asked)
            recalled.base, recalled.expected = start.base, start.expected
            yield result
            for token in tokens:  # one by one, as in the first generation, because a batch rounds sums differently
                start = replace(start, logits=self._cache.extend(asked.slot, token))
            start = replace(start, expected=self._rest_of_word(recalled))
        for chosen in islice(continuation(self._cache, asked.slot, start, self._llama), left):
            known.append(chosen)
            yield chosen

    def _rest_of_word(self, recalled: Recalled) -> bytes:
        """Return the bytes of the healed word that the recalled tokens have not generated."""
        expected = recalled.expected
        for chosen in recalled.chosen:
            if not expected:
                break
            expected = left_to_write(expected, self._llama.piece(chosen.token))
        return expected

    def _ends(self, token: int) -> bool:
        """Return whether `token` ends a completion."""
        return token in self._endings or self._llama.ends_text(token)

    def try_all(self, trials: Sequence[Trial]) -> Iterator[tuple[int, Tried]]:
        """Generate for all `trials` in parallel, with an empty cache, see `policy.engine.worker.batch`."""
        self.forget("")
        return Batch(self._llama, self._builder, self._reading_of, self._ends, _stats_of_trial, self._llama.end).run(
            trials
        )

    def _reading_of(
        self, logits: NDArray[np.float32], prompt_tokens: int, evaluated: int, milliseconds: float
    ) -> Reading:
        """Return the reading from the logits after the prompt for the decision, without the first token's figures."""
        return Reading(
            p_cc=None if self._cc is None else probability(logits, self._cc),
            cc_is_top=self._cc is not None and int(logits.argmax()) == self._cc,
            first_p=None,
            first_entropy=None,
            prompt_tokens=prompt_tokens,
            evaluated_tokens=evaluated,
            prompt_ms=0.0,
            prefill_ms=milliseconds,
        )

    def save(self, interrupted: Callable[[], bool]) -> bool:
        """Save the state of one prompt to disk, see `KvCache.save`."""
        return self._cache.save(interrupted)

    def forget(self, prefix: str) -> None:
        """Free the cells of every slot whose name begins with `prefix`, for example those of a closed document."""
        self._cache.forget_all(prefix)
        self._recall.forget_all(prefix)


class _ModelTime:
    """Measures the time spent inside llama.cpp since this object was created."""

    def __init__(self, llama: Llama) -> None:
        self._llama = llama
        self._before = llama.busy

    @property
    def milliseconds(self) -> float:
        return (self._llama.busy - self._before) * 1e3


class _Candidate:
    """The text of a candidate, which grows by one token at a time. `skipped` is as in `TextDecoder`."""

    def __init__(self, llama: Llama, skipped: int) -> None:
        self.tokens = 0
        self._decoder = TextDecoder(llama, skipped)
        self._surprises: list[float] = []

    def add(self, chosen: Chosen) -> str:
        """Return the text that a token adds."""
        self.tokens += 1
        self._surprises.append(round(chosen.surprise, 5))
        return self._decoder.decode(chosen.token)

    def take_surprises(self) -> tuple[float, ...]:
        """Return -ln P of the tokens since the last call."""
        taken, self._surprises = tuple(self._surprises), []
        return taken


def longest_sequence(budgets: Mapping[str, int], metadata: dict[str, str]) -> int:
    """Return the number of tokens that a sequence has to hold for a model with this metadata.

    `budgets`, by name, override those of the metadata.
    """
    return replace(Budgets.from_metadata(metadata), **budgets).tokens + RESERVED_TOKENS


def _stats(
    prompt: Prompt,
    chunks: Sequence[Chunk] | None,
    evaluated: int,
    prompt_ms: float,
    prefill_ms: float,
    *,
    short: bool = False,
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
        short=short,
    )


def _stats_of_trial(prompt: Prompt, trial: Trial, evaluated: int, milliseconds: float) -> PromptStats:
    return _stats(prompt, trial.chunks, evaluated, 0.0, milliseconds)


def used_chunks(prompt: Prompt, offered: Sequence[Chunk]) -> tuple[UsedChunk, ...]:
    """Return which of the offered chunks are in the prompt, each with its last line that fits."""
    return tuple(
        UsedChunk(index, chunk.end_line) for index, (chunk, _) in enumerate(zip(prompt.chunks, offered, strict=False))
    )
