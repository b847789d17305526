"""Answer requests: from an earlier completion, from a pending completion, or from a new one that `pipeline.py` makes.

A completion is separate from the request that started it (`pending.py`), so that the next request can join the
completion. Between requests, the engine does idle work (`idle.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace

from indexer.model import Cursor, Retriever
from policy.completion.attempt import slot
from policy.completion.clock import Clock
from policy.completion.debounce import Debounce
from policy.completion.idle import IdleWork
from policy.completion.pending import PendingCompletion
from policy.completion.pipeline import Pipeline
from policy.completion.request import Completion, CompletionSettings, Request
from policy.completion.reuse import Reuse
from policy.completion.shape import inside_word
from policy.engine.supervisor import Supervisor
from policy.errors import Preempted, RepoformerError
from policy.gating import keep
from policy.generators import GeneratorProvider, SameModel
from policy.tracing import span


class Completer:
    """Answers completion requests. See `Pipeline` for the parameters."""

    def __init__(
        self,
        supervisor: Supervisor,
        retriever: Callable[[], Retriever | None],
        settings: CompletionSettings | None = None,
        provider: GeneratorProvider | None = None,
    ) -> None:
        self.supervisor = supervisor
        self.settings = settings or CompletionSettings()
        self._provider: GeneratorProvider = provider or SameModel()
        self._pipeline = Pipeline(supervisor, retriever, self._provider)
        self._reuse: Reuse[Completion] = Reuse()
        self._debounce = Debounce()
        self._idle = IdleWork(
            self._pipeline, awaited=self._awaited, since_key=self._debounce.since_key, look_ahead=self.look_ahead
        )
        self._pending: dict[str, PendingCompletion[Completion]] = {}

    async def complete(self, request: Request) -> Completion:
        """Answer `request`. To cancel the request, cancel the task that calls this method.

        Raises `RepoformerError` if no engine is available, or if the engine fails. An invoked request is never answered
        from an earlier completion, because other files may have changed.
        """
        settings = request.apply(self.settings)
        clock = Clock()
        if automatic := request.trigger == "automatic":
            self._debounce.key()
            if known := self._reuse.find(request.document, request.cursor, settings):
                reused = judged(known.value.rest(known.text, known.typed), request, settings)
                if not self._idle.running:
                    self._idle.start_after(request, settings, reused)
                return replace(reused, timings_ms=clock.finish(), stats={"reused": 1})
        self._idle.cancel()
        if automatic and (joined := await self._join(request, settings)):
            joined = judged(joined, request, settings)
            self._idle.start_after(request, settings, joined)
            return replace(joined, timings_ms=clock.finish())
        if inside_word(request.cursor):
            return Completion("", reason="the cursor is inside a word", timings_ms=clock.finish())
        if automatic and (delay := self._debounce.delay()):
            with clock.measure("pause"):
                self._idle.start_warming(request.document, request.cursor, self.settings)
                await asyncio.sleep(delay)
        completion = await self._start(request, settings, clock).wait()
        assert completion is not None, "wait() without typed text returns the completion or raises"
        completion = judged(completion, request, settings)
        if automatic:
            spent = completion.timings_ms
            # `pause` is the delay of the request, and `engine` includes the time to load the model.
            not_answering = spent.get("pause", 0.0) + spent.get("engine", 0.0)
            self._debounce.answered((spent["total"] - not_answering) / 1e3)
            self._idle.start_after(request, settings, completion)
        return completion

    async def _join(self, request: Request, settings: CompletionSettings) -> Completion | None:
        """Return the rest of the document's pending completion, or None if `request` cannot join it."""
        pending = self._pending.get(request.document)
        typed = pending.typed(request.cursor, settings) if pending else None
        if pending is None or typed is None:
            return None
        try:
            if await pending.wait(typed) is None:
                return None
        except Preempted:  # another request interrupted the completion while it ran in the background
            return None
        if (known := self._reuse.find(request.document, request.cursor, settings)) is None:
            return None  # the user has already typed the whole text
        completion = known.value.rest(known.text, known.typed)
        return replace(completion, stats={**completion.stats, "joined": 1})

    def _start(
        self, request: Request, settings: CompletionSettings, clock: Clock, *, background: bool = False
    ) -> PendingCompletion[Completion]:
        """Start a completion. Cancel the document's pending completion, and all pending ones without a waiting request.

        If `background` is true, requests interrupt the completion.
        """
        for document, pending in self._pending.items():
            if document == request.document or not pending.awaited:
                pending.cancel()

        async def make(pending: PendingCompletion[Completion]) -> Completion:
            with span("completion"):
                completion = await self._pipeline.run(request, settings, clock, pending)
            reusable = replace(completion, others=())
            self._reuse.put(request.document, request.cursor, settings, completion.text, reusable)
            return completion

        pending = PendingCompletion(request.cursor, settings, make, background=background)
        self._pending[request.document] = pending
        return pending

    def look_ahead(self, request: Request, *, again: bool = False) -> None:
        """Start a completion for `request`, a likely later request, in the background.

        Do nothing if idle work is not allowed, if the cursor is inside a word, if a request waits for a completion of
        the document, or if the completion exists or is pending. If `again` is true, replace a completion that was
        generated after a short prompt.
        """
        settings = request.apply(self.settings)
        if not self._pipeline.works_ahead(request, settings) or inside_word(request.cursor):
            return
        pending = self._pending.get(request.document)
        in_progress = pending and (pending.awaited or pending.typed(request.cursor, settings) is not None)
        known = self._reuse.find(request.document, request.cursor, settings)
        if not in_progress and (known is None or (again and known.value.short_prompt)):
            self._start(request, settings, Clock(), background=True)

    async def warm(self, document: str, cursor: Cursor) -> None:
        """Evaluate the prompts of a request at `cursor` in advance. Stop when a request waits for a completion."""
        await self._idle.warm(document, cursor, self.settings)

    async def forget(self, document: str) -> None:
        """Delete the state of a closed document, including its part of the KV cache."""
        self._idle.cancel()
        self._reuse.forget(document)
        self._pipeline.forget(document)
        if pending := self._pending.pop(document, None):
            await pending.cancel_and_wait()
        with contextlib.suppress(RepoformerError):
            await self._provider.forget(slot(document, ""))
        if self.supervisor.state == "ready":
            with contextlib.suppress(RepoformerError):
                await (await self.supervisor.engine()).forget(slot(document, ""))

    async def warm_up(self) -> None:
        """Load the models. Raises the same errors as `complete`."""
        await asyncio.gather(self.supervisor.engine(), self._provider.warm_up())

    async def close(self) -> None:
        """Stop all work and disconnect from the engines."""
        self._idle.cancel()
        await asyncio.gather(*(pending.cancel_and_wait() for pending in self._pending.values()))
        await asyncio.gather(self._provider.close(), self.supervisor.close())

    def _awaited(self) -> bool:
        """Return whether a request waits for a completion."""
        return any(pending.awaited for pending in self._pending.values())


def judged(completion: Completion, request: Request, settings: CompletionSettings) -> Completion:
    """Return `completion` with its estimate, and without its text if the estimate is below the showing threshold.

    The completion that `Reuse` stores keeps its text. When the user has typed the beginning of the text, the rest is
    judged again. An invoked request always gets the text.
    """
    if completion.keep is None or not completion.text:
        return completion
    values = keep.features(
        request.cursor, completion.text, completion.surprises, completion.hits, shortened=completion.shortened
    )
    if values is None:
        return completion
    estimate = completion.keep.estimate(values, settings.suggest, request.shift)
    completion = replace(completion, estimate=estimate)
    if estimate.shown or request.trigger == "invoked":
        return completion
    return replace(completion, text="", others=(), reason=_why_hidden(estimate))


def _why_hidden(estimate: keep.Estimate) -> str:
    p, least = f"{estimate.p:.0%}", f"{estimate.threshold:.0%}"
    if p == least:
        p, least = f"{estimate.p:.2%}", f"{estimate.threshold:.2%}"
    suggest = f"`suggest: {estimate.suggest}` needs at least {least}"
    return f"not shown: the estimated probability that you keep it is {p}, and {suggest}"
