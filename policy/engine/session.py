"""What the worker does with a model: read up to the decision, generate behind it.

Both calls build their prompt anew and leave it to the KV cache to find out what of it is already there. That is why
nothing has to be carried from one call to the next, and why an abstained request evaluates L, R and the markers once:
the prompt to generate from begins with the prompt that was read.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from policy.decision import Calibration
from policy.engine.batch import BATCH, Batch, likeliest, slots
from policy.engine.cache import KvCache
from policy.engine.client import ModelInfo, PromptStats, Reading, Stop, Trial, Tried, UsedChunk
from policy.engine.llama import Llama, build_info
from policy.errors import ModelInvalid
from policy.prompt import LAYOUTS, Budgets, Layout, Prompt, PromptBuilder, Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.model import Chunk, Cursor

RESERVED_TOKENS = 320  # of the context: the longest generation, and the markers


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of a generation, and how many tokens it has so far."""

    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Done:
    """The end of a generation: by the model (`ended`) or by the limit."""

    tokens: int
    ended: bool


class Session:
    """One model with its prompt builder and its KV cache.

    `layout`, unless empty, and `budgets`, by name, override what the model's metadata says. Raises `ModelInvalid`
    when there is no way to complete code with this model.
    """

    def __init__(self, llama: Llama, layout: str, budgets: Mapping[str, int]) -> None:
        self._llama = llama
        self._cache = KvCache(llama)
        vocabulary = llama.vocabulary()
        chosen = choose_layout(layout or llama.metadata.get("repoformer.layout", ""), vocabulary)
        wanted = replace(budgets_of(llama.metadata), **budgets)
        self._builder = PromptBuilder(chosen, vocabulary, llama, wanted.fit(llama.n_ctx - RESERVED_TOKENS))
        self._shrunk = self._builder.budgets != wanted
        self._cc = vocabulary.ids.get("cc") if chosen.selective else None
        self._calibration = Calibration.from_metadata(llama.metadata)
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
            gpu_offload=build_info()["gpu_offload"],
            metadata={key: value for key, value in metadata.items() if not key.startswith("tokenizer.")},
        )

    def warm_up(self) -> None:
        """Evaluate a batch and a single token, so that a build that crashes at its first decode does so now."""
        tokens = self._llama.encode("def warm_up():\n" * 8)
        self._cache.evaluate("warm-up", tokens)
        self._cache.extend("warm-up", tokens[0])
        self._cache.forget("warm-up")

    def read(self, slot: str, cursor: Cursor) -> Reading:
        """Evaluate the prompt up to the decision (all of it for a model that makes none)."""
        started = time.perf_counter()
        selective = self._builder.layout.selective
        prompt = self._builder.decide(cursor) if selective else self._builder.abstain(cursor)
        built = time.perf_counter()
        result = self._cache.evaluate(slot, prompt.tokens)
        probabilities = softmax(result.logits)
        return Reading(
            p_cc=self._calibration.apply(float(probabilities[self._cc])) if self._cc is not None else None,
            cc_is_top=selective and int(result.logits.argmax()) == self._cc,
            top_p=float(probabilities.max()),
            entropy=entropy(probabilities),
            prompt_tokens=len(prompt.tokens),
            evaluated_tokens=result.evaluated,
            prompt_ms=(built - started) * 1e3,
            prefill_ms=(time.perf_counter() - built) * 1e3,
        )

    def generate(
        self, slot: str, cursor: Cursor, chunks: Sequence[Chunk] | None, max_tokens: int
    ) -> Iterator[PromptStats | Piece | Done]:
        """Greedy decoding, text as it comes. `chunks` None abstains; a list retrieves.

        Raises `policy.engine.cache.Aborted` when stopped from outside.
        """
        started = time.perf_counter()
        prompt = self._builder.abstain(cursor) if chunks is None else self._builder.retrieve(cursor, chunks)
        built = time.perf_counter()
        result = self._cache.evaluate(slot, prompt.tokens)
        yield _stats(prompt, chunks, result.evaluated, (built - started) * 1e3, (time.perf_counter() - built) * 1e3)
        # A character may be spread over tokens: the decoder keeps back what is not whole yet.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        logits = result.logits
        for count in range(1, max_tokens + 1):
            token = int(logits.argmax())
            if token in self._markers or self._llama.ends_text(token):
                yield Done(count, ended=True)
                return
            if text := decoder.decode(self._llama.piece(token)):
                yield Piece(text, count)
            if count < max_tokens:
                logits = self._cache.extend(slot, token)
        yield Done(max_tokens, ended=False)

    def try_all(self, trials: Sequence[Trial]) -> list[Tried]:
        """Generate for all `trials` side by side, in an empty cache. Raises `EngineFailed` where they do not fit."""
        self._cache.forget_all("")
        batch = Batch(self._llama, self._cache, self._markers)
        prompts = [
            self._builder.abstain(trial.cursor)
            if trial.chunks is None
            else self._builder.retrieve(trial.cursor, trial.chunks)
            for trial in trials
        ]
        batch.check([len(prompt.tokens) for prompt in prompts], [trial.stop for trial in trials])
        readings: list[Reading | None] = []
        stats: list[PromptStats] = []
        starts: list[tuple[str, Stop, int, float]] = []
        for slot, trial, prompt in zip(slots(len(trials)), trials, prompts, strict=True):
            readings.append(self.read(slot, trial.cursor) if trial.chunks is None else None)
            started = time.perf_counter()
            result = self._cache.evaluate(slot, prompt.tokens)
            starts.append((slot, trial.stop, *likeliest(result.logits)))
            prefill_ms = (time.perf_counter() - started) * 1e3
            stats.append(_stats(prompt, trial.chunks, result.evaluated, 0.0, prefill_ms))
        completed = batch.generate(starts)
        self._cache.forget_all(BATCH)
        return list(map(Tried, readings, stats, completed))

    def forget(self, prefix: str) -> None:
        """Give back the cells of every slot whose name begins with `prefix` (a closed document)."""
        self._cache.forget_all(prefix)


def choose_layout(name: str, vocabulary: Vocabulary) -> Layout:
    """The layout called `name`, or the best that the vocabulary allows where `name` is empty.

    Raises `ModelInvalid` for an unknown name and for one that the model has no tokens for.
    """
    if name:
        if name not in LAYOUTS:
            raise ModelInvalid(f"unknown prompt layout {name!r}: choose one of {', '.join(LAYOUTS)}")
        if missing := vocabulary.missing(LAYOUTS[name]):
            raise ModelInvalid(f"this model has no {', '.join(missing)} token: layout {name!r} needs it")
        return LAYOUTS[name]
    for candidate in ("repoformer", "fim-psm-files", "fim-psm"):
        if not vocabulary.missing(LAYOUTS[candidate]):
            return LAYOUTS[candidate]
    return LAYOUTS["prefix-only"]


def budgets_of(metadata: dict[str, str]) -> Budgets:
    """The budgets a model was trained with (`repoformer.budget.*`), the paper's where it does not say."""
    default = Budgets()

    def value(name: str, fallback: int) -> int:
        text = metadata.get(f"repoformer.budget.{name}", "")
        return int(text) if text.isdigit() else fallback

    return Budgets(
        value("left", default.left),
        value("right", default.right),
        value("context", default.context),
        value("step_lines", default.step_lines),
    )


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities over the whole vocabulary, in double precision: P(<cc>) is compared with a threshold."""
    shifted = np.exp(logits.astype(np.float64) - float(logits.max()))
    result: NDArray[np.float64] = shifted / shifted.sum()
    return result


def entropy(probabilities: NDArray[np.float64]) -> float:
    """Shannon entropy in nats."""
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log(positive)).sum())


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


def used_chunks(prompt: Prompt, offered: Sequence[Chunk]) -> tuple[UsedChunk, ...]:
    """Which of the offered chunks stand in the prompt, and where the last was cut."""
    return tuple(
        UsedChunk(index, chunk.end_line) for index, (chunk, _) in enumerate(zip(prompt.chunks, offered, strict=False))
    )
