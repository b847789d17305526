"""One request, from a cursor to what is shown: read, decide, retrieve if asked for, generate, shape.

What can be answered without the engine is: a completion that is there already, or one that another request has begun.
Else the completion is made apart from the request (`policy.completion.pending`), so that the next one can join it.
While nobody waits, the engine reads and writes ahead, in the background, where every request interrupts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from indexer.model import Cursor, Hit, Retriever
from policy.completion.attempt import Clock, Retrieval, Run, slot
from policy.completion.debounce import Rhythm
from policy.completion.pending import Flight, log_bug
from policy.completion.pinned import Held, Sticky
from policy.completion.reuse import Reuse
from policy.completion.shape import Shaper, inside_word
from policy.engine import Engine, Supervisor
from policy.errors import GaveWay, RepoformerError
from policy.gating.decision import Decision, Policy, Selection, by_gate, by_likeliest, by_policy, by_similarity
from policy.gating.evidence import evidence
from policy.gating.gate import AS_SAID, Known, TaskKind, gates_of
from policy.generators import Own, Source

Trigger = Literal["automatic", "invoked"]

# How many times the patience of an automatic completion a request has: whoever asks explicitly does wait.
PATIENCE = {"automatic": 1, "invoked": 5}


@dataclass(frozen=True, slots=True)
class CompletionSettings:
    """What a person can set about completions. None stands for what the model's metadata says.

    `line_tokens` and `block_tokens` limit a generation by its scope (the paper: 50, and 256 for functions; a block
    here is what fits on a screen without being in the way). After `patience` seconds of generating, a completion ends
    with the statement it has reached; after twice as many it ends in any case. One that comes later is not seen, and a
    model that finds no end is not worth waiting for. An explicit request gets up to `candidates` texts to choose from.
    `ahead`: while nobody waits, complete what would follow if the last completion were accepted, and read better
    chunks than those that stand in the prompt; without it every key that retrieves waits for a search.
    """

    policy: Policy = "selective"
    selection: Selection = "threshold"
    threshold: float | None = None
    multiline: bool = True
    chunks: int = 10
    line_tokens: int = 50
    block_tokens: int = 128
    patience: float = 0.6
    candidates: int = 3
    ahead: bool = True


@dataclass(frozen=True, slots=True)
class Request:
    """A completion wanted at `cursor`. `document` names the KV cache's slots (the URI, as a rule).

    What is not None goes before the settings; but a threshold that a person set goes before `threshold`, which is
    what the workspace was calibrated to. With `ahead` off nothing is done that was not asked for.
    """

    cursor: Cursor
    document: str
    trigger: Trigger = "automatic"
    policy: Policy | None = None
    multiline: bool | None = None
    threshold: float | None = None
    ahead: bool = True


@dataclass(frozen=True, slots=True)
class Completion:
    """What came of a request.

    `others` are further candidates, the better first. `hits` are the chunks that stood in the prompt, with the scores
    of the search that found them, which may have been that of an earlier key. `timings_ms` has a time for every stage
    that ran (`model` is what of all of them was spent inside llama.cpp), `stats` counts tokens; both tell of this
    request alone, so an answer that was there already has no stages, and `stats` say `reused`.
    `joined`: another request had begun what this one waited for.
    `trimmed` names what did not fit into the prompt as a whole: "left" and "right" of the cursor, "context" where
    chunks were cut or left out. An empty `text` has a `reason`. `parsed`: the language has a grammar, and the text adds
    no syntax error; else only brackets and quotes were checked.
    """

    text: str
    decision: Decision | None = None
    hits: tuple[Hit, ...] = ()
    timings_ms: dict[str, float] = field(default_factory=dict)
    stats: dict[str, int] = field(default_factory=dict)
    model: str = ""
    reason: str = ""
    trimmed: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    parsed: bool = True


LOOK_AHEAD = 0.15  # seconds without a request, after which the completion that would follow is made, or later


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
        self._sticky = Sticky()
        self._held = Held()
        self._rhythm = Rhythm()
        self._flights: dict[str, Flight[Completion]] = {}
        self._aside: asyncio.Task[None] | None = None

    async def complete(self, request: Request) -> Completion:
        """Answer `request`. Cancel the task when nobody wants the answer: what it started then gives way to others.

        Raises `RepoformerError` when there is no engine to answer, or it failed on the way.
        """
        settings = self._settings_for(request)
        clock = Clock()
        # Whoever asks explicitly wants to know anew: another file may have changed.
        if automatic := request.trigger == "automatic":
            self._rhythm.key()
            if known := self._reuse.find(request.document, request.cursor, settings):
                text, origin = known
                if self._aside is None or self._aside.done():
                    self._think_on(request, settings, replace(origin, text=text))
                return replace(origin, text=text, timings_ms=clock.finish(), stats={"reused": 1})
        self._set_aside(None)
        if automatic and (joined := await self._join(request, settings)):
            self._think_on(request, settings, joined)
            return replace(joined, timings_ms=clock.finish())
        if inside_word(request.cursor):
            return Completion("", reason="the cursor is inside a word", timings_ms=clock.finish())
        if automatic and (pause := self._rhythm.delay()):
            with clock.measure("pause"):
                self._set_aside(self.warm(request.document, request.cursor))
                await asyncio.sleep(pause)
        completion = await self._take_off(request, settings, clock).wait()
        assert completion is not None, "nothing was typed that it could disagree with"
        if automatic:
            spent = completion.timings_ms
            idle = spent.get("pause", 0.0) + spent.get("engine", 0.0)  # held back; the model was loaded
            self._rhythm.answered((spent["total"] - idle) / 1e3)
            self._think_on(request, settings, completion)
        return completion

    async def _join(self, request: Request, settings: CompletionSettings) -> Completion | None:
        """What is left of a completion that is being made, if it turns out to say what was typed since."""
        flight = self._flights.get(request.document)
        typed = flight.typed(request.cursor, settings) if flight else None
        if flight is None or typed is None:
            return None
        try:
            if await flight.wait(typed) is None:
                return None
        except GaveWay:  # just before it was waited for
            return None
        if (known := self._reuse.find(request.document, request.cursor, settings)) is None:
            return None  # there is nothing left of it
        text, origin = known
        return replace(origin, text=text, stats={**origin.stats, "joined": 1})

    def _take_off(
        self, request: Request, settings: CompletionSettings, clock: Clock, *, background: bool = False
    ) -> Flight[Completion]:
        """Begin to make a completion, in place of the one before it in this document and of what nobody waits for."""
        for document, flight in self._flights.items():
            if document == request.document or not flight.awaited:
                flight.cancel()
        flight = self._flights[request.document] = Flight(
            request.cursor,
            settings,
            lambda flight: self._make(request, settings, clock, flight),
            background=background,
        )
        return flight

    async def _make(
        self, request: Request, settings: CompletionSettings, clock: Clock, flight: Flight[Completion]
    ) -> Completion:
        automatic = request.trigger == "automatic"
        candidates = 1 if automatic else settings.candidates
        with clock.measure("engine"):
            engine = await self.supervisor.engine()
        retriever = self._retriever() if settings.policy != "never" else None
        retrieval = Retrieval(retriever, request.cursor, settings.chunks, clock)
        run = Run(
            engine,
            self._source,
            request.document,
            request.cursor,
            clock,
            patience=settings.patience * PATIENCE[request.trigger],
            urgency=flight.urgency,
            say=flight.say,
        )
        decision = by_policy(settings.policy)
        if decision is None and automatic:
            decision = self._held.find(request.document, request.cursor, settings)
        # What was found for an earlier key is what the model has read; whether it still is the best is seen to later.
        standing: tuple[Hit, ...] = ()
        if automatic and self._works_ahead(request, settings):
            standing = self._sticky.standing(request.document, request.cursor)
        try:
            if not standing and (decision is None or decision.retrieve):
                retrieval.begin()  # before the engine has read anything, so that its result is there when it has
            if decision is None:
                if self._asks_the_model:
                    run.begin_reading()
                if run.apart:
                    run.begin((), settings.block_tokens, candidates)
            elif standing or not decision.retrieve:
                run.begin(standing if decision.retrieve else (), settings.block_tokens, candidates)
            await asyncio.sleep(0)  # what has begun asks and searches with its first step
            with clock.measure("shape"):  # while the engine is at work
                # Whoever types is not made to wait for a block: the line comes first.
                shaper = Shaper(request.cursor, multiline=settings.multiline, bodies=not automatic)
                shaper.prepare()
            limit = settings.block_tokens if shaper.grows else settings.line_tokens
            if decision is None:
                with clock.measure("decision"):
                    decision = await self._decide(run, retrieval, standing, request.cursor, settings, shaper.scope)
                if not flight.urgency.background:  # else it is about another line than the one that is typed
                    self._held.put(request.document, request.cursor, settings, decision)
            hits: tuple[Hit, ...] = ()
            if decision.retrieve and standing and not retrieval.begun:
                hits = standing
            elif decision.retrieve:
                hits = self._sticky.choose(request.document, request.cursor, await retrieval.hits())
                # At once, read or not: the next key would bring in still others, and none would ever be read.
                self._sticky.stand(request.document, request.cursor, hits)
            written = await run.generate(shaper, hits, limit, candidates)
        finally:
            retrieval.cancel()
            await run.end()
        if decision.retrieve and self._sticky.standing(request.document, request.cursor) == hits:
            self._sticky.stand(request.document, request.cursor, written.found)  # those that fit, from here on
        text, *others = written.texts or ("",)
        completion = Completion(
            text,
            decision,
            written.hits,
            clock.finish(),
            run.stats(),
            run.model,
            reason=written.reason,
            trimmed=run.trimmed,
            parsed=shaper.parsed,
            others=tuple(others),
        )
        self._reuse.put(request.document, request.cursor, settings, text, replace(completion, others=()))
        return completion

    async def _decide(
        self,
        run: Run,
        retrieval: Retrieval,
        standing: Sequence[Hit],
        cursor: Cursor,
        settings: CompletionSettings,
        kind: TaskKind,
    ) -> Decision:
        if self._asks_the_model:
            info = self.supervisor.info
            reading = await run.read()
            if reading.p_cc is not None and settings.selection == "greedy":
                return by_likeliest(reading.p_cc, cc_is_top=reading.cc_is_top)
            gates = gates_of(info.metadata if info and not self._source.decides else {})
            gate = gates[0] if settings.selection == "threshold" else gates[-1]
            # What stands in the prompt already is what retrieving would bring: no key waits for a search.
            found = evidence(cursor, standing or await retrieval.hits()) if gate.asks_retrieval else None
            known = Known(kind, reading.p_cc, reading.first_p, reading.first_entropy, found)
            if decision := by_gate(gate, known, settings.threshold) or by_gate(AS_SAID, known, settings.threshold):
                return decision
        # Nothing to ask the model: what is similar is known within milliseconds, before anything is evaluated.
        best = max((hit.score for hit in await retrieval.hits()), default=0.0)
        return by_similarity(best) if settings.threshold is None else by_similarity(best, settings.threshold)

    @property
    def _asks_the_model(self) -> bool:
        """Whether there is a model that says whether to retrieve."""
        info = self.supervisor.info
        return info is None or info.selective or self._source.decides

    # -- while nobody waits -------------------------------------------------------------------------------------------

    async def warm(self, document: str, cursor: Cursor) -> None:
        """Have the engine read what a request at `cursor` would, as long as nobody wants anything else of it.

        That is either branch, as far as the policy allows: which one it is going to be changes with every line.
        """
        policy = self.settings.policy
        with contextlib.suppress(RepoformerError):
            engine = await self.supervisor.engine()
            if policy != "always" and not self._awaited:
                await engine.warm(slot(document, "plain"), cursor)
            if policy != "never" and not self._awaited:
                await self._freshen(engine, document, cursor, again=True)

    async def _freshen(self, engine: Engine, document: str, cursor: Cursor, *, again: bool = False) -> None:
        """Search for what belongs into the prompt at `cursor`, and have it read; from then on it stands there.

        Until it is read what stood there before still does: no key waits for hundreds of tokens. What stands there
        already is not read, except `again`. Not for a server: it keeps no cache of ours.
        """
        writer, retriever = self._source.generator(engine), self._retriever()
        if retriever is None or not isinstance(writer, Engine):
            return
        found = await asyncio.to_thread(retriever.search, cursor, self.settings.chunks)
        standing, hits = self._sticky.standing(document, cursor), self._sticky.choose(document, cursor, found)
        if self._awaited or (hits == standing and not again):
            return
        used = await writer.warm(slot(document, "retrieved"), cursor, [hit.chunk for hit in hits]) if hits else ()
        self._sticky.stand(document, cursor, [hits[each.index] for each in used])

    def look_ahead(self, request: Request) -> None:
        """Make a completion that is going to be asked for, in the background, unless it is there or being made."""
        settings = self._settings_for(request)
        if not self._works_ahead(request, settings) or inside_word(request.cursor):
            return
        flight = self._flights.get(request.document)
        on_the_way = flight and (flight.awaited or flight.typed(request.cursor, settings) is not None)
        if not on_the_way and not self._reuse.find(request.document, request.cursor, settings):
            self._take_off(request, settings, Clock(), background=True)

    def _works_ahead(self, request: Request, settings: CompletionSettings) -> bool:
        """Whether anything is done behind a request that was not asked for."""
        return settings.ahead and request.ahead and self._source.local

    def _think_on(self, request: Request, settings: CompletionSettings, completion: Completion) -> None:
        """Now that a request has its answer: look for better chunks, and complete what comes behind it."""
        if self._works_ahead(request, settings):
            self._set_aside(self._go_on(request, completion))

    async def _go_on(self, request: Request, completion: Completion) -> None:
        due = time.monotonic() + LOOK_AHEAD
        retrieves = completion.decision is not None and completion.decision.retrieve
        if retrieves or self._sticky.standing(request.document, request.cursor):
            with contextlib.suppress(RepoformerError):
                await self._freshen(await self.supervisor.engine(), request.document, request.cursor)
        await asyncio.sleep(due - time.monotonic())
        if completion.text and not self._awaited:
            self.look_ahead(after(request, completion.text))

    @property
    def _awaited(self) -> bool:
        """Whether somebody waits for a completion."""
        return any(flight.awaited for flight in self._flights.values())

    def _set_aside(self, work: Coroutine[None, None, None] | None) -> None:
        """What to do while nobody waits, in place of what was being done."""
        if self._aside is not None:
            self._aside.cancel()
        self._aside = asyncio.create_task(work) if work else None
        if self._aside is not None:
            self._aside.add_done_callback(log_bug)

    # -- life ---------------------------------------------------------------------------------------------------------

    async def forget(self, document: str) -> None:
        """Give back what is remembered of a closed document, in the KV cache as well."""
        self._set_aside(None)
        self._reuse.forget(document)
        self._sticky.forget(document)
        self._held.forget(document)
        if flight := self._flights.pop(document, None):
            await flight.cancelled()
        with contextlib.suppress(RepoformerError):
            await self._source.forget(slot(document, ""))
        if self.supervisor.state == "ready":
            with contextlib.suppress(RepoformerError):
                await (await self.supervisor.engine()).forget(slot(document, ""))

    async def warm_up(self) -> None:
        """Have everything loaded that a request needs. Raises what `complete` does."""
        await asyncio.gather(self.supervisor.engine(), self._source.warm_up())

    async def close(self) -> None:
        """Stop what runs and leave the engines."""
        self._set_aside(None)
        await asyncio.gather(*(flight.cancelled() for flight in self._flights.values()))
        await asyncio.gather(self._source.close(), self.supervisor.close())

    def _settings_for(self, request: Request) -> CompletionSettings:
        settings = self.settings
        if request.policy is not None:
            settings = replace(settings, policy=request.policy)
        if request.multiline is not None:
            settings = replace(settings, multiline=request.multiline)
        if settings.threshold is None:
            settings = replace(settings, threshold=request.threshold)
        return settings


def after(request: Request, text: str) -> Request:
    """The request that would follow if `text` were accepted."""
    cursor = replace(request.cursor, prefix=request.cursor.prefix + text)
    return replace(request, cursor=cursor, trigger="automatic")
