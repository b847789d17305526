"""Do idle work, while no request waits: evaluate prompts, search for better chunks, generate the next completion.

A line break can change the beginning of the prompt (`prompting/prompt.py`), so the model may have to read hundreds of
tokens again, when the user pauses at the beginning of a line and looks for a suggestion. So the prompt of the next line
is evaluated in advance.

Idle work has `background` urgency in the engine, so that every request interrupts it. Only one task of idle work runs
at a time. The next request cancels or replaces this task.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Protocol

from indexer.model import Cursor, Hit
from indexer.words import last_lines
from policy.completion.attempt import slot
from policy.completion.cost import FEW_TOKENS, reads_fast, waits_for_chunks
from policy.completion.pending import log_bug
from policy.completion.pipeline import Pipeline
from policy.completion.request import Completion, CompletionSettings, Request
from policy.engine.client import Engine
from policy.engine.messages import Urgency
from policy.errors import RepoformerError

LOOK_AHEAD = 0.15  # seconds without a request before the next completion is generated in advance
CALM = 1.0  # seconds without a key before a machine that reads slowly reads better chunks or a whole prompt


class LookAhead(Protocol):
    """The type of `Completer.look_ahead`."""

    def __call__(self, request: Request, *, again: bool = False) -> None:
        """Start a completion for `request` in the background."""
        ...


class IdleWork:
    """Runs work while no request waits.

    `awaited` returns whether a request waits for a completion, and `since_key` the seconds since the last key.
    `look_ahead` starts a completion in the background, see `Completer.look_ahead`.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        awaited: Callable[[], bool],
        since_key: Callable[[], float],
        look_ahead: LookAhead,
    ) -> None:
        self._pipeline = pipeline
        self._awaited = awaited
        self._since_key = since_key
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

        The branch that the request is likely to use comes first. If the policy allows both branches, a machine that
        reads chunks slowly reads the plain branch first, so that a key need not wait for chunks. If one prompt does not
        take long, the other branch comes second, because each line has its own decision.
        """
        with contextlib.suppress(RepoformerError):
            engine = await self._pipeline.supervisor.engine()
            hits = await self._hits(document, cursor, settings)
            expected = self._pipeline.expects(document, cursor, hits, settings) if hits else False
            selective = settings.policy == "selective"
            plain_first = not expected or (selective and await waits_for_chunks(engine))
            for retrieves in (False, True) if plain_first else (True, False):
                likely = expected in (None, retrieves) or (plain_first and not retrieves)
                if not likely and not (selective and await reads_fast(engine)):
                    return
                if self._awaited():
                    return
                if retrieves:
                    await self._refresh(engine, document, cursor, hits, again=True)
                else:
                    await engine.warm(slot(document, "plain"), cursor)

    async def _after(self, request: Request, settings: CompletionSettings, completion: Completion) -> None:
        due = time.monotonic() + LOOK_AHEAD
        engine = await self._pipeline.supervisor.engine()
        if fast := await reads_fast(engine):
            with contextlib.suppress(RepoformerError):  # an interruption must not prevent the next completion
                await self._refresh_after(engine, request, settings, completion, fast=True)
        await asyncio.sleep(due - time.monotonic())
        if completion.text and not self._awaited():
            self._look_ahead(request.after(completion.text))
        with contextlib.suppress(RepoformerError):
            await self._read_next_line(engine, request, completion)
        if fast and not completion.short_prompt:
            return
        # While the user types, each key would interrupt this work, and the engine would spend most of its time on
        # prompts that no suggestion uses.
        while (left := CALM - self._since_key()) > 0:  # noqa: ASYNC110 (no event says that there was no key)
            await asyncio.sleep(left)
        with contextlib.suppress(RepoformerError):
            if not fast:
                await self._refresh_after(engine, request, settings, completion, fast=False)
            if completion.short_prompt and await self._read_whole(engine, request, completion) and completion.text:
                self._look_ahead(request.after(completion.text), again=True)

    async def _read_next_line(self, engine: Engine, request: Request, completion: Completion) -> None:
        """Evaluate the prompt of a request in the next line, if many of its tokens are not in the KV cache."""
        generator = self._pipeline.provider.generator(engine)
        if completion.decision is None or not isinstance(generator, Engine):
            return
        cursor = request.next_line(completion.text)
        retrieves = completion.decision.retrieve
        hits = self._pipeline.pinned.at(request.document, cursor) if retrieves else ()
        chunks = [hit.chunk for hit in hits] or None
        # The next completion is being generated, and this request does not interrupt it.
        missing = await generator.missing(cursor, [chunks], Urgency(background=True))
        if missing.tokens[0] > FEW_TOKENS and not self._awaited():
            branch = slot(request.document, "retrieved" if chunks else "plain", ahead=True)
            await generator.warm(branch, cursor, chunks, whole=False)

    async def _read_whole(self, engine: Engine, request: Request, completion: Completion) -> bool:
        """Evaluate the whole prompt of a completion that used a short one. Return whether it was evaluated."""
        generator = self._pipeline.provider.generator(engine)
        if completion.decision is None or not isinstance(generator, Engine) or self._awaited():
            return False
        pinned = self._pipeline.pinned.at(request.document, request.cursor) if completion.decision.retrieve else ()
        if pinned:
            await self._refresh(engine, request.document, request.cursor, pinned, again=True)
        else:
            await generator.warm(slot(request.document, "plain"), request.cursor)
        return not self._awaited()

    async def _refresh_after(
        self, engine: Engine, request: Request, settings: CompletionSettings, completion: Completion, *, fast: bool
    ) -> None:
        if self._wants_chunks(request, completion, fast=fast):
            hits = await self._hits(request.document, request.cursor, settings)
            deferred = completion.decision is not None and completion.decision.deferred
            await self._refresh(engine, request.document, request.cursor, hits, again=deferred)

    def _wants_chunks(self, request: Request, completion: Completion, *, fast: bool) -> bool:
        """Return whether to search for better chunks after an answer, and to read the prompt with them.

        A machine that reads slowly does this only if the completion retrieved or wanted to, and not within a line: the
        search at the end of the line finds other chunks again.
        """
        decision = completion.decision
        if decision is None:
            return False
        if decision.deferred:
            return True
        if not decision.retrieve and not self._pipeline.pinned.at(request.document, request.cursor):
            return False
        at_border = not last_lines(request.cursor.prefix, 1).strip()
        return (decision.retrieve and at_border) or fast

    async def _hits(self, document: str, cursor: Cursor, settings: CompletionSettings) -> tuple[Hit, ...]:
        """Return the chunks for a prompt at `cursor`: the pinned ones if they are good enough, or those of a search.

        If a server generates, there are none, because this process does not control the server's cache.
        """
        retriever = self._pipeline.retriever()
        if retriever is None or settings.policy == "never" or not self._pipeline.provider.local:
            return ()
        found = await asyncio.to_thread(retriever.search, cursor, settings.chunks)
        return self._pipeline.pinned.choose(document, cursor, found)

    async def _refresh(
        self, engine: Engine, document: str, cursor: Cursor, hits: tuple[Hit, ...], *, again: bool
    ) -> None:
        """Evaluate the prompt with the chunks of `hits`, and then pin them.

        The old chunks stay pinned until the prompt with the new ones is evaluated, so that no keystroke waits for the
        evaluation of hundreds of tokens. If the chunks are already pinned, the prompt is evaluated only if `again` is
        true.
        """
        generator = self._pipeline.provider.generator(engine)
        pinned = self._pipeline.pinned
        if not isinstance(generator, Engine) or self._awaited() or (hits == pinned.at(document, cursor) and not again):
            return
        used = await generator.warm(slot(document, "retrieved"), cursor, [hit.chunk for hit in hits]) if hits else ()
        pinned.pin(document, cursor, [hits[each.index] for each in used])

    def _replace(self, work: Coroutine[None, None, None]) -> None:
        self.cancel()
        self._task = asyncio.create_task(work)
        self._task.add_done_callback(log_bug)
