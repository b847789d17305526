"""What one completion asks of the index (`Search`) and of the models (`Attempt`), and what that took.

A search runs in a thread while the model reads. A generation starts before its text is asked for where its prompt is
known already, and where another model than the one that decides generates: the plain generation then runs beside the
decision (the paper's online serving model, section 6.3).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from indexer.model import Chunk, Cursor, Hit, Retriever
from policy.completion.clock import Clock
from policy.completion.shape import NOTHING, Shaper
from policy.engine.client import Engine
from policy.engine.messages import GenerationRequest, PromptStats, Reading, Surprise, Urgency
from policy.gating.keep import Keep, aligned, carried, is_shortened
from policy.generators import GeneratorProvider, RunningGeneration, StartedGeneration


class Search:
    """A search of the index in a thread; it finds nothing where there is no retriever."""

    def __init__(self, retriever: Retriever | None, cursor: Cursor, count: int, clock: Clock) -> None:
        self._retriever = retriever
        self._cursor = cursor
        self._count = count
        self._clock = clock
        self._task: asyncio.Task[tuple[Hit, ...]] | None = None

    @property
    def started(self) -> bool:
        """Whether the search was started."""
        return self._task is not None

    def start(self) -> None:
        """Start the search unless it was; `hits` waits for the result."""
        if self._task is None and self._retriever is not None:
            self._task = asyncio.create_task(self._search(self._retriever))

    async def hits(self) -> tuple[Hit, ...]:
        """Return the hits, best first; start the search if need be."""
        self.start()
        return await self._task if self._task is not None else ()

    def cancel(self) -> None:
        """Drop the result; the thread ends by itself within milliseconds."""
        if self._task is not None:
            self._task.cancel()

    async def _search(self, retriever: Retriever) -> tuple[Hit, ...]:
        with self._clock.measure("retrieval"):
            return await asyncio.to_thread(retriever.search, self._cursor, self._count)


@dataclass(frozen=True, slots=True)
class Generated:
    """The texts to show, best first, and the chunks in their prompt: `hits` as they were cut, `whole_hits` uncut.

    Where there are no texts, `reason` says why. `surprises`, `shortened` and `keep` are as of `request.Completion`.
    """

    texts: tuple[str, ...]
    hits: tuple[Hit, ...] = ()
    whole_hits: tuple[Hit, ...] = ()
    reason: str = ""
    surprises: tuple[Surprise, ...] = ()
    shortened: bool = False
    keep: Keep | None = None


class Attempt:
    """The models' part of one completion. `report` gets the whole text so far each time it grows, not shaped."""

    def __init__(
        self,
        engine: Engine,
        provider: GeneratorProvider,
        document: str,
        cursor: Cursor,
        clock: Clock,
        *,
        patience: float,
        urgency: Urgency,
        report: Callable[[str], None],
    ) -> None:
        self.model = ""
        self.trimmed: tuple[str, ...] = ()
        self._reader, self._generator = provider.reader(engine), provider.generator(engine)
        self.separate = self._generator is not engine  # whether another model than the one that decides generates
        self._started: StartedGeneration | None = None
        self._started_with: tuple[Chunk, ...] = ()
        self._reading: asyncio.Task[Reading] | None = None
        self._document = document
        self._cursor = cursor
        self._clock = clock
        self._patience = patience
        self._urgency = urgency
        self._report = report
        self._stats = {"prompt_tokens": 0, "evaluated_tokens": 0, "generated_tokens": 0, "context_tokens": 0}

    def start_reading(self) -> None:
        """Ask the model that decides; `read` waits for the answer."""
        self._reading = asyncio.create_task(
            self._reader.read(slot(self._document, "plain"), self._cursor, self._urgency)
        )

    def start_generating(self, hits: tuple[Hit, ...], limit: int, candidates: int) -> None:
        """Start to generate with `hits`. `generate` takes this generation over if it is called with the same ones."""
        chunks = tuple(hit.chunk for hit in hits)
        self._started, self._started_with = StartedGeneration(self._generation(chunks, limit, candidates)), chunks

    async def read(self) -> Reading:
        """Wait for the answer of the model that decides."""
        assert self._reading is not None, "start_reading was not called"
        reading = await self._reading
        self._count(reading)
        self._clock.add("model", reading.prefill_ms)
        return reading

    async def generate(self, shaper: Shaper, hits: tuple[Hit, ...], limit: int, candidates: int) -> Generated:
        """Generate until what to show is decided, or patience is over."""
        chunks = tuple(hit.chunk for hit in hits)
        if self._started is not None and self._started_with != chunks:
            await self._started.cancel()
            self._started = None
        generation = self._started or self._generation(chunks, limit, candidates)
        texts: dict[int, str] = {}
        decided: set[int] = set()
        began, count = 0.0, 0
        with self._clock.measure("generation"):
            async with contextlib.aclosing(generation.pieces()) as pieces:
                async for number, piece in pieces:
                    began = began or time.monotonic()
                    text = texts[number] = texts.get(number, "") + piece
                    if number == 0:
                        count += 1  # counted here, because a started generation has the higher of two limits
                        self._report(text)
                    if shaper.decided(text):
                        decided.add(number)
                    if len(decided) == len(texts) or count >= limit:
                        break
                    if self._out_of_patience(shaper, time.monotonic() - began, texts.get(0, "")):
                        break
        with self._clock.measure("shape"):
            shown = [
                shaper.finish(text, complete=generation.ended and number not in decided)
                for number, text in sorted(texts.items())
            ]
        self.model = generation.model
        self._stats["generated_tokens"] = generation.tokens
        self._clock.add("model", generation.model_ms)
        distinct = tuple(dict.fromkeys(shaped.text for shaped in shown if shaped.text))
        reason = "" if distinct else next((shaped.reason for shaped in shown), NOTHING)
        generated = Generated(distinct, reason=reason)
        if distinct and distinct[0] == shown[0].text:  # the greedy one, which the surprises are of
            generated = replace(
                generated,
                surprises=aligned(texts[0], distinct[0], generation.surprises),
                shortened=is_shortened(texts[0], distinct[0]),
                keep=carried(generation.metadata),
            )
        return self._with_chunks(generated, hits, generation.prompt) if generation.prompt else generated

    async def end(self) -> None:
        """Cancel what still runs."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
            if not self._reading.cancelled():
                self._reading.exception()  # mark the error as retrieved: `read` raised it
        if self._started is not None:
            await self._started.cancel()

    def stats(self) -> dict[str, int]:
        """Return counts of tokens: in the prompt, evaluated, generated, and of the chunks in the prompt."""
        return dict(self._stats)

    def _out_of_patience(self, shaper: Shaper, seconds: float, text: str) -> bool:
        """Whether it has taken too long: there is something to show, or there will be nothing in time."""
        if seconds > 2 * self._patience:
            return True
        return seconds > self._patience and bool(shaper.finish(text, complete=False).text)

    def _with_chunks(self, generated: Generated, hits: tuple[Hit, ...], prompt: PromptStats) -> Generated:
        self._count(prompt)
        self._stats["context_tokens"] = prompt.context_tokens
        used = [(hits[used.index], used.end_line) for used in prompt.chunks]
        whole = sum(end_line == hit.chunk.end_line for hit, end_line in used)
        parts = {"left": prompt.left_trimmed, "right": prompt.right_trimmed, "context": whole < len(hits)}
        self.trimmed = tuple(part for part, trimmed in parts.items() if trimmed)
        cut = tuple(replace(hit, chunk=replace(hit.chunk, end_line=end_line)) for hit, end_line in used)
        return replace(generated, hits=cut, whole_hits=tuple(hit for hit, _ in used))

    def _generation(self, chunks: tuple[Chunk, ...], limit: int, candidates: int) -> RunningGeneration:
        branch = slot(self._document, "retrieved" if chunks else "plain")
        request = GenerationRequest(branch, self._cursor, chunks or None, limit, candidates)
        return self._generator.generate(request, self._urgency)

    def _count(self, step: Reading | PromptStats) -> None:
        self._stats["prompt_tokens"] = step.prompt_tokens
        self._stats["evaluated_tokens"] += step.evaluated_tokens
        self._clock.add("prompt", step.prompt_ms)
        self._clock.add("prefill", step.prefill_ms)


def slot(document: str, branch: str) -> str:
    """Return the name of a document's branch ("plain", "retrieved"; "" for both) in the KV cache."""
    return f"{document}#{branch}"
