"""One request, from a cursor to what is shown: read, decide, retrieve if asked for, generate, shape.

Retrieval starts together with the reading of L and R, since it takes milliseconds where reading takes most of the
time; whether its result is used is decided afterwards (the paper's online serving model, section 6.3). Generation
goes on from the KV cache of the reading, and stops as soon as the text is decided. Where another model generates, its
plain generation starts at once too, and is dropped when the decision is to retrieve.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from indexer.model import Cursor, Hit, Retriever
from policy.decision import Decision, Policy, Selection, TaskKind, Thresholds, by_policy, by_similarity, by_token
from policy.engine import Engine, PromptStats, Reading, Supervisor
from policy.errors import RepoformerError
from policy.generators import Ahead, Own, Running, Source
from policy.reuse import Reuse
from policy.shape import Shaper

Trigger = Literal["automatic", "invoked"]

# How many times the patience of an automatic completion a request has: whoever asks explicitly does wait.
PATIENCE = {"automatic": 1, "invoked": 5}


@dataclass(frozen=True, slots=True)
class CompletionSettings:
    """What a person can set about completions. None stands for what the model's metadata says.

    `line_tokens` and `block_tokens` limit a generation by its scope (the paper: 50, and 256 for functions; a block
    here is what fits on a screen without being in the way). After `patience` seconds of generating, a completion ends
    with the statement it has reached; after twice as many it ends in any case. One that comes later is not seen, and a
    model that finds no end is not worth waiting for.
    """

    policy: Policy = "selective"
    selection: Selection = "threshold"
    threshold: float | None = None
    multiline: bool = True
    chunks: int = 10
    line_tokens: int = 50
    block_tokens: int = 128
    patience: float = 0.6


@dataclass(frozen=True, slots=True)
class Request:
    """A completion wanted at `cursor`. `document` names the KV cache's slots (the URI, as a rule)."""

    cursor: Cursor
    document: str
    trigger: Trigger = "automatic"
    policy: Policy | None = None
    multiline: bool | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """What came of a request.

    `hits` are the chunks that stood in the prompt. `timings_ms` has a time for every stage that ran, `stats` counts
    tokens; both tell of this request alone, so an answer that was there already has no stages, and `stats` say
    `reused`. `trimmed` names what did not fit into the prompt as a whole: "left" and "right" of the cursor, "context"
    where chunks were cut or left out. An empty `text` has a `reason`.
    """

    text: str
    decision: Decision | None = None
    hits: tuple[Hit, ...] = ()
    timings_ms: dict[str, float] = field(default_factory=dict)
    stats: dict[str, int] = field(default_factory=dict)
    model: str = ""
    reason: str = ""
    trimmed: tuple[str, ...] = ()


class Completer:
    """Completes code with one model and whatever `retriever` returns at the time of a request.

    The model decides whether to retrieve; it also writes, unless `source` has another that does.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        retriever: Callable[[], Retriever | None],
        settings: CompletionSettings | None = None,
        source: Source | None = None,
    ) -> None:
        self.supervisor = supervisor
        self._source: Source = source or Own()
        self.settings = settings or CompletionSettings()
        self._retriever = retriever
        self._reuse: Reuse[Completion] = Reuse()

    async def complete(self, request: Request) -> Completion:
        """Answer `request`; cancel the task to stop everything it started, native code included.

        Raises `RepoformerError` when there is no engine to answer, or it failed on the way.
        """
        settings = self._settings_for(request)
        clock = _Clock()
        # Whoever asks explicitly wants to know anew: another file may have changed.
        if request.trigger == "automatic" and (known := self._reuse.find(request.document, request.cursor, settings)):
            text, origin = known
            return replace(origin, text=text, timings_ms=clock.finish(), stats={"reused": 1})
        with clock.measure("shape"):
            shaper = Shaper(request.cursor, multiline=settings.multiline)
        if shaper.scope == "nothing":
            return Completion("", reason="the cursor is inside a word", timings_ms=clock.finish())
        with clock.measure("engine"):
            engine = await self.supervisor.engine()
        # Started before the engine has read anything, so that its result is there when the decision is.
        retriever = self._retriever() if settings.policy != "never" else None
        retrieval = _Retrieval(retriever, request.cursor, settings.chunks, clock)
        patience = settings.patience * PATIENCE[request.trigger]
        run = _Run(engine, self._source, request, shaper, clock, patience)
        limit = settings.block_tokens if shaper.grows else settings.line_tokens
        try:
            if settings.policy != "always":
                run.begin(limit)
            with clock.measure("decision"):
                decision = await self._decide(run, retrieval, settings, "block" if shaper.scope == "block" else "line")
            hits: tuple[Hit, ...] = ()
            if decision.retrieve:
                hits = await retrieval.hits()
            text, used = await run.generate(hits, limit)
        finally:
            retrieval.cancel()
            await run.end()
        reason = "" if text else "the model had nothing to add"
        completion = Completion(text, decision, used, clock.finish(), run.stats(), run.model, reason, run.trimmed)
        self._reuse.put(request.document, request.cursor, settings, text, completion)
        return completion

    async def _decide(self, run: _Run, retrieval: _Retrieval, settings: CompletionSettings, kind: TaskKind) -> Decision:
        if decision := by_policy(settings.policy):
            return decision
        info = self.supervisor.info
        thresholds = Thresholds.from_metadata(info.metadata if info else {})
        own = settings.threshold
        if info is None or info.selective or self._source.decides:
            decision = by_token(await run.read(), thresholds.of(kind) if own is None else own, settings.selection)
            if decision is not None:
                return decision
        # Nothing to ask the model: what is similar is known within milliseconds, before anything is evaluated.
        best = max((hit.score for hit in await retrieval.hits()), default=0.0)
        return by_similarity(best, thresholds.similarity if own is None else own)

    async def forget(self, document: str) -> None:
        """Give back what is remembered of a closed document, in the KV cache as well."""
        self._reuse.forget(document)
        with contextlib.suppress(RepoformerError):
            await self._source.forget(_slot(document, ""))
        if self.supervisor.state == "ready":
            with contextlib.suppress(RepoformerError):
                await (await self.supervisor.engine()).forget(_slot(document, ""))

    async def warm_up(self) -> None:
        """Have everything loaded that a request needs. Raises what `complete` does."""
        await asyncio.gather(self.supervisor.engine(), self._source.warm_up())

    async def close(self) -> None:
        """Leave the engines."""
        await asyncio.gather(self._source.close(), self.supervisor.close())

    def _settings_for(self, request: Request) -> CompletionSettings:
        settings = self.settings
        if request.policy is not None:
            settings = replace(settings, policy=request.policy)
        if request.multiline is not None:
            settings = replace(settings, multiline=request.multiline)
        return settings


class _Clock:
    """Milliseconds by stage; a stage that runs twice adds up."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._spent: dict[str, float] = {}

    @contextlib.contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, (time.perf_counter() - started) * 1e3)

    def add(self, stage: str, milliseconds: float) -> None:
        self._spent[stage] = self._spent.get(stage, 0.0) + milliseconds

    def finish(self) -> dict[str, float]:
        self._spent["total"] = (time.perf_counter() - self._started) * 1e3
        return {stage: round(spent, 3) for stage, spent in self._spent.items()}


class _Retrieval:
    """A search that runs in a thread beside the reading, unless the policy could not want its result."""

    def __init__(self, retriever: Retriever | None, cursor: Cursor, count: int, clock: _Clock) -> None:
        self._clock = clock
        self._task = asyncio.create_task(self._search(retriever, cursor, count)) if retriever else None

    async def hits(self) -> tuple[Hit, ...]:
        """What was found, best first."""
        return await self._task if self._task is not None else ()

    def cancel(self) -> None:
        """Nobody waits for the result any more; the thread ends by itself within milliseconds."""
        if self._task is not None:
            self._task.cancel()

    async def _search(self, retriever: Retriever, cursor: Cursor, count: int) -> tuple[Hit, ...]:
        with self._clock.measure("retrieval"):
            return await asyncio.to_thread(retriever.search, cursor, count)


class _Run:
    """The models' part of one request, with what is counted on the way."""

    def __init__(
        self, engine: Engine, source: Source, request: Request, shaper: Shaper, clock: _Clock, patience: float
    ) -> None:
        self._reader, self._generator = source.reader(engine), source.generator(engine)
        self._apart = self._generator is not engine
        self._plain: Ahead | None = None
        self._patience = patience
        self.model = ""
        self._request = request
        self._shaper = shaper
        self._clock = clock
        self.trimmed: tuple[str, ...] = ()
        self._stats = {"prompt_tokens": 0, "evaluated_tokens": 0, "generated_tokens": 0, "context_tokens": 0}

    def begin(self, limit: int) -> None:
        """Start the plain generation, unless it has to wait for the decision because the same model makes it."""
        if self._apart:
            self._plain = Ahead(self._generate((), limit))

    async def end(self) -> None:
        """Nobody waits for anything any more."""
        if self._plain is not None:
            await self._plain.cancel()

    async def read(self) -> Reading:
        reading = await self._reader.read(_slot(self._request.document, "plain"), self._request.cursor)
        self._count(reading)
        return reading

    async def generate(self, hits: tuple[Hit, ...], limit: int) -> tuple[str, tuple[Hit, ...]]:
        """What to show, and the chunks that stood in the prompt (cut where they were cut)."""
        if hits:
            await self.end()
        generation = self._plain if self._plain is not None and not hits else self._generate(hits, limit)
        text, decided, began, patience = "", False, 0.0, self._patience
        with self._clock.measure("generation"):
            async with contextlib.aclosing(aiter(generation)) as pieces:
                async for piece in pieces:
                    began = began or time.monotonic()
                    text += piece
                    if decided := self._shaper.decided(text):
                        break
                    waited = time.monotonic() - began
                    if waited > 2 * patience or (waited > patience and self._shaper.finish(text, complete=False)):
                        break
        with self._clock.measure("shape"):
            shown = self._shaper.finish(text, complete=generation.ended and not decided)
        self.model = generation.model
        self._stats["generated_tokens"] = generation.tokens
        if (prompt := generation.prompt) is None:
            return shown, ()
        self._count(prompt)
        self._stats["context_tokens"] = prompt.context_tokens
        stood = tuple(
            replace(hits[used.index], chunk=replace(hits[used.index].chunk, end_line=used.end_line))
            for used in prompt.chunks
        )
        whole = sum(used.end_line == hits[used.index].chunk.end_line for used in prompt.chunks)
        parts = {"left": prompt.left_trimmed, "right": prompt.right_trimmed, "context": whole < len(hits)}
        self.trimmed = tuple(part for part, trimmed in parts.items() if trimmed)
        return shown, stood

    def _generate(self, hits: tuple[Hit, ...], limit: int) -> Running:
        slot = _slot(self._request.document, "retrieved" if hits else "plain")
        chunks = [hit.chunk for hit in hits] or None
        return self._generator.generate(slot, self._request.cursor, chunks, limit)

    def stats(self) -> dict[str, int]:
        return dict(self._stats)

    def _count(self, step: Reading | PromptStats) -> None:
        self._stats["prompt_tokens"] = step.prompt_tokens
        self._stats["evaluated_tokens"] += step.evaluated_tokens
        self._clock.add("prompt", step.prompt_ms)
        self._clock.add("prefill", step.prefill_ms)


def _slot(document: str, branch: str) -> str:
    return f"{document}#{branch}"
