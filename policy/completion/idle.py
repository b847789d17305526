"""Do idle work, while no request waits: evaluate prompts, search for better chunks, generate the next completion.

Idle work has `background` urgency in the engine, so that every request interrupts it. Only one task of idle work runs
at a time. The next request cancels or replaces this task.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine

from indexer.model import Cursor
from policy.completion.attempt import slot
from policy.completion.pending import log_bug
from policy.completion.pipeline import Pipeline
from policy.completion.request import Completion, CompletionSettings, Request
from policy.engine.client import Engine
from policy.errors import RepoformerError

LOOK_AHEAD = 0.15  # seconds without a request before the next completion is generated in advance


class IdleWork:
    """Runs work while no request waits.

    `awaited` returns whether a request waits for a completion. `look_ahead` starts a completion in the background.
    """

    def __init__(
        self, pipeline: Pipeline, *, awaited: Callable[[], bool], look_ahead: Callable[[Request], None]
    ) -> None:
        self._pipeline = pipeline
        self._awaited = awaited
        self._look_ahead = look_ahead
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether idle work is in progress."""
        return self._task is not None and not self._task.done()

    def cancel(self) -> None:
        """Cancel the work in progress."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def start_warming(self, document: str, cursor: Cursor, settings: CompletionSettings) -> None:
        """Replace the work in progress by `warm`."""
        self._replace(self.warm(document, cursor, settings))

    def start_after(self, request: Request, settings: CompletionSettings, completion: Completion) -> None:
        """Replace the work in progress by the work after the answer `completion` to `request`.

        This work is to search for better chunks, and then to generate the next completion.
        """
        if self._pipeline.works_ahead(request, settings):
            self._replace(self._after(request, settings, completion))

    async def warm(self, document: str, cursor: Cursor, settings: CompletionSettings) -> None:
        """Evaluate the prompts of a request at `cursor` in advance. Stop when a request waits for a completion.

        If the policy allows both branches, the prompts of both are evaluated, because each line has its own decision.
        """
        with contextlib.suppress(RepoformerError):
            engine = await self._pipeline.supervisor.engine()
            if settings.policy != "always" and not self._awaited():
                await engine.warm(slot(document, "plain"), cursor)
            if settings.policy != "never" and not self._awaited():
                await self._refresh(engine, document, cursor, settings, again=True)

    async def _after(self, request: Request, settings: CompletionSettings, completion: Completion) -> None:
        due = time.monotonic() + LOOK_AHEAD
        retrieves = completion.decision is not None and completion.decision.retrieve
        if retrieves or self._pipeline.pinned.at(request.document, request.cursor):
            with contextlib.suppress(RepoformerError):
                engine = await self._pipeline.supervisor.engine()
                await self._refresh(engine, request.document, request.cursor, settings)
        await asyncio.sleep(due - time.monotonic())
        if completion.text and not self._awaited():
            self._look_ahead(request.after(completion.text))

    async def _refresh(
        self, engine: Engine, document: str, cursor: Cursor, settings: CompletionSettings, *, again: bool = False
    ) -> None:
        """Search for the best chunks at `cursor`, evaluate the prompt with them, and then pin them.

        The old chunks stay pinned until the prompt with the new ones is evaluated, so that no keystroke waits for the
        evaluation of hundreds of tokens. If the best chunks are already pinned, the prompt is evaluated only if `again`
        is true. If a server generates, nothing is done, because this process does not control the server's cache.
        """
        generator, retriever = self._pipeline.provider.generator(engine), self._pipeline.retriever()
        if retriever is None or not isinstance(generator, Engine):
            return
        found = await asyncio.to_thread(retriever.search, cursor, settings.chunks)
        pinned = self._pipeline.pinned
        before, hits = pinned.at(document, cursor), pinned.choose(document, cursor, found)
        if self._awaited() or (hits == before and not again):
            return
        used = await generator.warm(slot(document, "retrieved"), cursor, [hit.chunk for hit in hits]) if hits else ()
        pinned.pin(document, cursor, [hits[each.index] for each in used])

    def _replace(self, work: Coroutine[None, None, None]) -> None:
        self.cancel()
        self._task = asyncio.create_task(work)
        self._task.add_done_callback(log_bug)
