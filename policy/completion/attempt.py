"""Search the index (`Search`) and call the models (`Attempt`) for one completion, and measure the time of both.

The search runs in a thread while the model reads the prompt. If the decision is already known, the generation starts
immediately. If one model decides and another generates, a generation without chunks also starts immediately, and runs
during the decision (the paper's online serving model, section 6.3).
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
from policy.engine.messages import GenerationRequest, Missing, PromptStats, Reading, Surprise, Urgency
from policy.gating.keep import Keep, aligned, is_shortened, keep_from_metadata
from policy.generators import GeneratorProvider, RunningGeneration, StartedGeneration

LONGEST = 3  # the number of time limits after the first token at which a generation ends without a text to show


class Search:
    """A search of the index in a thread, for at most `count` hits. If `retriever` is None, there are no hits."""

    def __init__(self, retriever: Retriever | None, cursor: Cursor, count: int, clock: Clock) -> None:
        self._retriever = retriever
        self._cursor = cursor
        self._count = count
        self._clock = clock
        self._task: asyncio.Task[tuple[Hit, ...]] | None = None

    @property
    def started(self) -> bool:
        """Whether the search has started."""
        return self._task is not None

    def start(self) -> None:
        """Start the search, unless it has already started. `hits` waits for the result."""
        if self._task is None and self._retriever is not None:
            self._task = asyncio.create_task(self._search(self._retriever))

    async def hits(self) -> tuple[Hit, ...]:
        """Return the hits, best first. Start the search if it has not started yet."""
        self.start()
        return await self._task if self._task is not None else ()

    def cancel(self) -> None:
        """Discard the result. The thread is not interrupted, because a search takes only milliseconds."""
        if self._task is not None:
            self._task.cancel()

    async def _search(self, retriever: Retriever) -> tuple[Hit, ...]:
        with self._clock.measure("retrieval"):
            return await asyncio.to_thread(retriever.search, self._cursor, self._count)


@dataclass(frozen=True, slots=True)
class Generated:
    """The texts to show (best first), and the chunks in their prompt.

    `hits` has the chunks as they were cut for the prompt, and `whole_hits` has the same chunks uncut. If there are no
    texts, `reason` says why. For `short_prompt`, `surprises`, `shortened` and `keep`, see `request.Completion`.
    """

    texts: tuple[str, ...]
    hits: tuple[Hit, ...] = ()
    whole_hits: tuple[Hit, ...] = ()
    reason: str = ""
    short_prompt: bool = False
    surprises: tuple[Surprise, ...] = ()
    shortened: bool = False
    keep: Keep | None = None


class Attempt:
    """The calls of the models for one completion.

    `document` is the beginning of the names of the document's slots in the KV cache. `patience` is the time limit in
    seconds. It counts from the creation of `clock`, or, if the completion is `invoked`, from the first token. `report`
    is called with the whole generated text, before shaping, each time the text grows. After `generate`, `model` is the
    name of the generating model, and `trimmed` names the parts that did not fit into the prompt (see
    `request.Completion`).
    """

    def __init__(
        self,
        engine: Engine,
        provider: GeneratorProvider,
        document: str,
        cursor: Cursor,
        clock: Clock,
        *,
        patience: float,
        invoked: bool,
        urgency: Urgency,
        report: Callable[[str], None],
    ) -> None:
        self.model = ""
        self.trimmed: tuple[str, ...] = ()
        self._reader, self._generator = provider.reader(engine), provider.generator(engine)
        # Whether a model other than the local one generates. That model can generate while the decision is made.
        self.separate = self._generator is not engine
        self._started: StartedGeneration | None = None
        self._started_with: tuple[Chunk, ...] = ()
        self._reading: asyncio.Task[Reading] | None = None
        self._document = document
        self._cursor = cursor
        self._clock = clock
        self._patience = patience
        self._invoked = invoked
        self._urgency = urgency
        # This does not change if a request joins the completion, although the urgency does: another slot would lack the
        # prompt.
        self._ahead = urgency.background
        self._report = report
        self._stats = {"prompt_tokens": 0, "evaluated_tokens": 0, "generated_tokens": 0, "context_tokens": 0}

    def start_reading(self) -> None:
        """Start the evaluation of the prompt up to the decision. `read` waits for the result."""
        self._reading = asyncio.create_task(
            self._reader.read(
                slot(self._document, "plain", ahead=self._ahead), self._cursor, self._urgency, whole=self._invoked
            )
        )

    def start_generating(self, hits: tuple[Hit, ...], limit: int, candidates: int) -> None:
        """Start to generate with the chunks of `hits`.

        If `generate` is called with the same hits, it uses this generation. Otherwise, it cancels this generation.
        """
        chunks = tuple(hit.chunk for hit in hits)
        self._started, self._started_with = StartedGeneration(self._generation(chunks, limit, candidates)), chunks

    async def missing(self, hits: tuple[Hit, ...]) -> Missing | None:
        """Return how many tokens of the prompts are not in the KV cache of the local engine.

        The first prompt is that without chunks, and the second that with the chunks of `hits`. Return None if another
        model generates.
        """
        if not isinstance(self._generator, Engine) or self.separate:
            return None
        branches = (None, [hit.chunk for hit in hits])
        missing = await self._generator.missing(self._cursor, branches, self._urgency, whole=self._invoked)
        self._clock.add("queue", missing.queue_ms)
        return missing

    async def read(self) -> Reading:
        """Return the result of the evaluation that `start_reading` started."""
        assert self._reading is not None, "start_reading was not called"
        reading = await self._reading
        self._count(reading)
        self._clock.add("model", reading.prefill_ms)
        return reading

    async def generate(self, shaper: Shaper, hits: tuple[Hit, ...], limit: int, candidates: int) -> Generated:
        """Generate until the texts to show are certain, or a limit is reached. Return the texts to show.

        `limit` is the maximum number of tokens of a text, and `candidates` is the maximum number of texts.
        """
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
                        count += 1  # `limit` is checked here, because `start_generating` may have got a higher limit
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
        if distinct and distinct[0] == shown[0].text:  # only the first candidate has surprises
            generated = replace(
                generated,
                surprises=aligned(texts[0], distinct[0], generation.surprises),
                shortened=is_shortened(texts[0], distinct[0]),
                keep=keep_from_metadata(generation.metadata),
            )
        return self._with_chunks(generated, hits, generation.prompt) if generation.prompt else generated

    async def end(self) -> None:
        """Cancel the reading and the generation if they are still running."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
            if not self._reading.cancelled():
                self._reading.exception()  # without this call, asyncio logs the error, which `read` has already raised
        if self._started is not None:
            await self._started.cancel()

    def stats(self) -> dict[str, int]:
        """Return the numbers of tokens: in the prompt, evaluated, generated, and in the cross-file context."""
        return dict(self._stats)

    def _out_of_patience(self, shaper: Shaper, seconds: float, text: str) -> bool:
        """Return whether to stop generating. `seconds` is the time since the first token.

        A generation that no request waits for has twice the time limit.
        """
        if seconds > LONGEST * self._patience:
            return True
        limit = self._patience * (2 if self._urgency.background else 1)
        spent = seconds if self._invoked else self._clock.seconds
        return spent > limit and bool(shaper.finish(text, complete=False).text)

    def _with_chunks(self, generated: Generated, hits: tuple[Hit, ...], prompt: PromptStats) -> Generated:
        self._count(prompt)
        self._stats["context_tokens"] = prompt.context_tokens
        used = [(hits[used.index], used.end_line) for used in prompt.chunks]
        whole = sum(end_line == hit.chunk.end_line for hit, end_line in used)
        parts = {"left": prompt.left_trimmed, "right": prompt.right_trimmed, "context": whole < len(hits)}
        self.trimmed = tuple(part for part, trimmed in parts.items() if trimmed)
        cut = tuple(replace(hit, chunk=replace(hit.chunk, end_line=end_line)) for hit, end_line in used)
        return replace(generated, hits=cut, whole_hits=tuple(hit for hit, _ in used), short_prompt=prompt.short)

    def _generation(self, chunks: tuple[Chunk, ...], limit: int, candidates: int) -> RunningGeneration:
        branch = slot(self._document, "retrieved" if chunks else "plain", ahead=self._ahead)
        # A user who invoked the completion is ready to wait until the whole prompt is read.
        request = GenerationRequest(branch, self._cursor, chunks or None, limit, candidates, whole=self._invoked)
        return self._generator.generate(request, self._urgency)

    def _count(self, step: Reading | PromptStats) -> None:
        self._stats["prompt_tokens"] = step.prompt_tokens
        self._stats["evaluated_tokens"] += step.evaluated_tokens
        self._clock.add("queue", step.queue_ms)
        self._clock.add("prompt", step.prompt_ms)
        self._clock.add("prefill", step.prefill_ms)


def slot(document: str, branch: str, *, ahead: bool = False) -> str:
    """Return the name of the slot of a document's branch. `branch` is "plain" or "retrieved".

    If `branch` is "", return the common prefix of the names of all slots of the document. Work in advance at another
    cursor has its own slots (`ahead`), so that the cells of the prompt at the user's cursor stay in the KV cache.
    """
    return f"{document}#{branch}" + (" ahead" if ahead else "")
