"""What one completion takes of the index and of the models, and what that took.

A search, where there is one, runs in a thread while the model reads. A generation begins before anybody listens to it
where it is known which one it is going to be, and where another model than the deciding one writes: the plain one then
runs beside the decision (the paper's online serving model, section 6.3).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from indexer.model import Chunk, Cursor, Hit, Retriever
from policy.completion.shape import NOTHING, Shaper
from policy.engine import Engine, PromptStats, Reading, Urgency
from policy.generators import Ahead, Running, Source


class Clock:
    """Milliseconds by stage; a stage that runs twice adds up."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._spent: dict[str, float] = {}

    @contextlib.contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Count what happens inside towards `stage`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, (time.perf_counter() - started) * 1e3)

    def add(self, stage: str, milliseconds: float) -> None:
        """Count what was measured elsewhere."""
        self._spent[stage] = self._spent.get(stage, 0.0) + milliseconds

    def finish(self) -> dict[str, float]:
        """All stages, and the total."""
        self._spent["total"] = (time.perf_counter() - self._started) * 1e3
        return {stage: round(spent, 3) for stage, spent in self._spent.items()}


class Retrieval:
    """A search that runs in a thread beside the reading, unless there is no retriever."""

    def __init__(self, retriever: Retriever | None, cursor: Cursor, count: int, clock: Clock) -> None:
        self._retriever = retriever
        self._cursor = cursor
        self._count = count
        self._clock = clock
        self._task: asyncio.Task[tuple[Hit, ...]] | None = None

    @property
    def begun(self) -> bool:
        """Whether somebody has wanted to know."""
        return self._task is not None

    def begin(self) -> None:
        """Search, if that has not begun; `hits` waits for the result."""
        if self._task is None and self._retriever is not None:
            self._task = asyncio.create_task(self._search(self._retriever))

    async def hits(self) -> tuple[Hit, ...]:
        """What was found, best first."""
        self.begin()
        return await self._task if self._task is not None else ()

    def cancel(self) -> None:
        """Nobody waits for the result any more; the thread ends by itself within milliseconds."""
        if self._task is not None:
            self._task.cancel()

    async def _search(self, retriever: Retriever) -> tuple[Hit, ...]:
        with self._clock.measure("retrieval"):
            return await asyncio.to_thread(retriever.search, self._cursor, self._count)


@dataclass(frozen=True, slots=True)
class Written:
    """What to show, the best first, and the chunks that stood in the prompt, whole as they were `found`, and as `hits`.

    The latter are cut where they were cut. Where there are no texts, `reason` says why.
    """

    texts: tuple[str, ...]
    hits: tuple[Hit, ...] = ()
    found: tuple[Hit, ...] = ()
    reason: str = ""


class Run:
    """The models' part of one completion. `say` gets the text so far as it comes, unshaped."""

    def __init__(
        self,
        engine: Engine,
        source: Source,
        document: str,
        cursor: Cursor,
        clock: Clock,
        *,
        patience: float,
        urgency: Urgency,
        say: Callable[[str], None],
    ) -> None:
        self.model = ""
        self.trimmed: tuple[str, ...] = ()
        self._reader, self._generator = source.reader(engine), source.generator(engine)
        self.apart = self._generator is not engine  # whether the model that writes is not the one that decides
        self._ahead: Ahead | None = None
        self._ahead_with: tuple[Chunk, ...] = ()
        self._reading: asyncio.Task[Reading] | None = None
        self._document = document
        self._cursor = cursor
        self._clock = clock
        self._patience = patience
        self._urgency = urgency
        self._say = say
        self._stats = {"prompt_tokens": 0, "evaluated_tokens": 0, "generated_tokens": 0, "context_tokens": 0}

    def begin(self, hits: tuple[Hit, ...], limit: int, candidates: int) -> None:
        """Start to generate with these, before `generate` asks for that, or for something else."""
        chunks = tuple(hit.chunk for hit in hits)
        self._ahead, self._ahead_with = Ahead(self._generate(chunks, limit, candidates)), chunks

    async def end(self) -> None:
        """Nobody waits for anything any more."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
            if not self._reading.cancelled():
                self._reading.exception()  # whoever waited for it knows
        if self._ahead is not None:
            await self._ahead.cancel()

    def begin_reading(self) -> None:
        """Ask the model that decides; `read` waits for the answer."""
        self._reading = asyncio.create_task(
            self._reader.read(slot(self._document, "plain"), self._cursor, self._urgency)
        )

    async def read(self) -> Reading:
        """What the model that decides was asked for."""
        assert self._reading is not None, "nobody asked"
        reading = await self._reading
        self._count(reading)
        self._clock.add("model", reading.prefill_ms)
        return reading

    async def generate(self, shaper: Shaper, hits: tuple[Hit, ...], limit: int, candidates: int) -> Written:
        """Generate until it is decided what will be shown, or for as long as that is waited for."""
        chunks = tuple(hit.chunk for hit in hits)
        if self._ahead is not None and self._ahead_with != chunks:
            await self._ahead.cancel()
            self._ahead = None
        generation = self._ahead or self._generate(chunks, limit, candidates)
        texts: dict[int, str] = {}
        decided: set[int] = set()
        began, said = 0.0, 0
        with self._clock.measure("generation"):
            async with contextlib.aclosing(generation.pieces()) as pieces:
                async for number, piece in pieces:
                    began = began or time.monotonic()
                    text = texts[number] = texts.get(number, "") + piece
                    if number == 0:
                        said += 1  # one begun ahead has the higher of two limits
                        self._say(text)
                    if shaper.decided(text):
                        decided.add(number)
                    if len(decided) == len(texts) or said >= limit:
                        break
                    if self._waited(shaper, time.monotonic() - began, texts.get(0, "")):
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
        written = Written(distinct, reason=reason)
        return self._with_chunks(written, hits, generation.prompt) if generation.prompt else written

    def stats(self) -> dict[str, int]:
        """Tokens."""
        return dict(self._stats)

    def _waited(self, shaper: Shaper, seconds: float, text: str) -> bool:
        """Whether it has taken too long: there is something to show, or there is not going to be."""
        if seconds > 2 * self._patience:
            return True
        return seconds > self._patience and bool(shaper.finish(text, complete=False).text)

    def _with_chunks(self, written: Written, hits: tuple[Hit, ...], prompt: PromptStats) -> Written:
        self._count(prompt)
        self._stats["context_tokens"] = prompt.context_tokens
        stood = [(hits[used.index], used.end_line) for used in prompt.chunks]
        whole = sum(end_line == hit.chunk.end_line for hit, end_line in stood)
        parts = {"left": prompt.left_trimmed, "right": prompt.right_trimmed, "context": whole < len(hits)}
        self.trimmed = tuple(part for part, trimmed in parts.items() if trimmed)
        cut = tuple(replace(hit, chunk=replace(hit.chunk, end_line=end_line)) for hit, end_line in stood)
        return replace(written, hits=cut, found=tuple(hit for hit, _ in stood))

    def _generate(self, chunks: tuple[Chunk, ...], limit: int, candidates: int) -> Running:
        branch = slot(self._document, "retrieved" if chunks else "plain")
        return self._generator.generate(
            branch, self._cursor, chunks or None, limit, candidates=candidates, urgency=self._urgency
        )

    def _count(self, step: Reading | PromptStats) -> None:
        self._stats["prompt_tokens"] = step.prompt_tokens
        self._stats["evaluated_tokens"] += step.evaluated_tokens
        self._clock.add("prompt", step.prompt_ms)
        self._clock.add("prefill", step.prefill_ms)


def slot(document: str, branch: str) -> str:
    """What a branch of a document is called in the KV cache."""
    return f"{document}#{branch}"
