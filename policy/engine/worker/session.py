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

from policy.engine.client import ModelInfo, PromptStats, Reading, Trial, Tried, UsedChunk
from policy.engine.worker.batch import Batch
from policy.engine.worker.cache import Evaluated, KvCache
from policy.engine.worker.decoding import candidates, continuation, softmax, with_first
from policy.engine.worker.llama import Llama
from policy.engine.worker.metadata import budgets_of, choose_layout
from policy.engine.worker.recall import Recall
from policy.prompting.prompt import Prompt, PromptBuilder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.model import Chunk, Cursor

RESERVED_TOKENS = 320  # of a sequence: the longest generation, and the markers
WARM_GRAIN = 16  # tokens that an interrupted warming up may lose


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of a generation, or of one of its candidates, and how many tokens that has so far.

    `model_ms`: milliseconds inside llama.cpp, since the generation began.
    """

    text: str
    tokens: int
    model_ms: float
    candidate: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """The end of a generation: by the model (`ended`) or by the limit. `model_ms` as of `Piece`."""

    tokens: int
    ended: bool
    model_ms: float


class Session:
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
        self._markers = {token for role, token in vocabulary.ids.items() if role != "bos"}

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

    def read(self, slot: str, cursor: Cursor, grain: int | None = None) -> Reading:
        """Evaluate the prompt of an abstention, which has the decision on the way.

        The token behind the decision goes into the same batch: to abstain takes nothing more, and to retrieve has cost
        one token.
        """
        started = time.perf_counter()
        selective = self._builder.layout.selective
        prompt = self._builder.abstain(cursor)
        built = time.perf_counter()
        known = self._recall.of(slot, prompt.tokens)
        if known.reading is not None:
            return replace(known.reading, evaluated_tokens=0, prompt_ms=(built - started) * 1e3, prefill_ms=0.0)
        result = self._cache.evaluate(slot, prompt.tokens, grain)
        known.said = known.said or [int(result.logits.argmax())]
        logits = result.before if selective else result.logits
        spent = (time.perf_counter() - built) * 1e3
        reading = with_first(self._judge(logits, len(prompt.tokens), result.evaluated, spent), result.logits)
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
        self._cache.evaluate(beside, prompt.tokens, WARM_GRAIN)
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
        said = self._recall.of(slot, prompt.tokens).said
        if said:
            yield stats
        writer = _Writer(self._llama)
        spent = _Spent(self._llama)
        count = 0
        for token in self._said_and_going_on(slot, prompt, said, max_tokens):
            if isinstance(token, Evaluated):
                yield replace(stats, evaluated_tokens=token.evaluated, prefill_ms=token.milliseconds)
                continue
            count += 1
            if self._ends(token):
                yield Done(count, True, spent.milliseconds)
                return
            if text := writer.write(token):
                yield Piece(text, count, spent.milliseconds)
        yield Done(count, False, spent.milliseconds)

    def _several(
        self, slot: str, prompt: Prompt, stats: PromptStats, max_tokens: int, count: int
    ) -> Iterator[PromptStats | Piece | Done]:
        spent = _Spent(self._llama)
        result = self._cache.evaluate(slot, prompt.tokens)
        yield replace(stats, evaluated_tokens=result.evaluated, prefill_ms=result.milliseconds)
        writers: dict[int, _Writer] = {}
        count = min(count, self._llama.n_seq - 1)
        for step in candidates(self._cache, slot, result.logits, count, self._ends):
            writer = writers.setdefault(step.candidate, _Writer(self._llama))
            if writer.tokens >= max_tokens:
                break
            if text := "".join(writer.write(token) for token in step.tokens if not self._ends(token)):
                yield Piece(text, writer.tokens, spent.milliseconds, step.candidate)
        tokens = max(writer.tokens for writer in writers.values())
        yield Done(tokens, tokens < max_tokens, spent.milliseconds)

    def _said_and_going_on(self, slot: str, prompt: Prompt, said: list[int], limit: int) -> Iterator[int | Evaluated]:
        """Up to `limit` tokens: those that were said of this prompt before, then new ones, which are noted."""
        yield from said[:limit]
        left = limit - len(said)
        if left <= 0 or (said and self._ends(said[-1])):
            return
        if said and self._cache.holds(slot, [*prompt.tokens, *said[:-1]]):
            logits = self._cache.extend(slot, said[-1])
        else:
            result = self._cache.evaluate(slot, prompt.tokens)
            yield result
            logits = result.logits
            for token in said:  # one by one, as it was: see `KvCache.evaluate`
                logits = self._cache.extend(slot, token)
        for token in islice(continuation(self._cache, slot, logits), left):
            said.append(token)
            yield token

    def _prompt(self, cursor: Cursor, chunks: Sequence[Chunk] | None) -> tuple[Prompt, PromptStats]:
        started = time.perf_counter()
        prompt = self._builder.abstain(cursor) if chunks is None else self._builder.retrieve(cursor, chunks)
        return prompt, _stats(prompt, chunks, 0, (time.perf_counter() - started) * 1e3, 0.0)

    def _ends(self, token: int) -> bool:
        """Whether the model has said all it has to say with `token`."""
        return token in self._markers or self._llama.ends_text(token)

    def try_all(self, trials: Sequence[Trial]) -> Iterator[tuple[int, Tried]]:
        """Generate for all `trials` side by side, in an empty cache; see `policy.engine.worker.batch`."""
        self.forget("")
        return Batch(self._llama, self._builder, self._judge, self._ends, _told).run(trials)

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
    """Makes text of tokens. A character may be spread over several: what is not whole yet is kept back."""

    def __init__(self, llama: Llama) -> None:
        self.tokens = 0
        self._llama = llama
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, token: int) -> str:
        self.tokens += 1
        return self._decoder.decode(self._llama.piece(token))


def longest_sequence(budgets: Mapping[str, int], metadata: dict[str, str]) -> int:
    """How many tokens a sequence of a model with this metadata has to hold, where `budgets` override its own."""
    return replace(budgets_of(metadata), **budgets).tokens + RESERVED_TOKENS


def _stats(
    prompt: Prompt, chunks: Sequence[Chunk] | None, evaluated: int, prompt_ms: float, prefill_ms: float
) -> PromptStats:
    return PromptStats(
        prompt_tokens=len(prompt.tokens),
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
