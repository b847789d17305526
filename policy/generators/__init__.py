"""Which model generates the completion, once the decision is made.

`SameModel`: the model that decides also generates, from the KV cache of the decision. `larger.Larger`: another GGUF on
this machine generates, and the Repoformer stays the policy (the paper's "plug-and-play", section 5.4).
`server.Server`: an OpenAI-compatible server generates, and may decide as well. The latter two fall back to the local
model while they are unavailable, so that no request waits for them.

A generator has the interface of `policy.engine.client.Engine`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol

from indexer.model import Cursor
from policy.engine.client import Engine
from policy.engine.messages import GenerationRequest, PromptStats, Reading, Surprise, Urgency


class RunningGeneration(Protocol):
    """A generation in progress: iterate over its text. Leaving the iteration early ends the generation at once.

    `pieces` gives the texts of several candidates. `prompt` is set with the first piece.
    """

    @property
    def model(self) -> str:
        """The name of the model that generates."""

    @property
    def prompt(self) -> PromptStats | None:
        """The prompt that the generation started from."""

    @property
    def tokens(self) -> int:
        """The number of tokens generated so far."""

    @property
    def model_ms(self) -> float:
        """Milliseconds inside llama.cpp so far; 0 when another computer generates."""

    @property
    def ended(self) -> bool:
        """Whether the model ended the text itself."""

    @property
    def surprises(self) -> Sequence[Surprise]:
        """How unlikely the tokens of candidate 0 were; none where that is not known."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata of the model that generates; none where they are not known."""

    def __aiter__(self) -> AsyncGenerator[str]: ...

    def pieces(self) -> AsyncGenerator[tuple[int, str]]:
        """Yield the candidate's number and a piece of its text."""
        ...


class SingleCandidate:
    """A generation that makes one candidate, however many were asked for."""

    @property
    def model_ms(self) -> float:
        """None of this machine's time."""
        return 0.0

    @property
    def surprises(self) -> Sequence[Surprise]:
        """Not known."""
        return ()

    @property
    def metadata(self) -> Mapping[str, str]:
        """Not known."""
        return {}

    def __aiter__(self) -> AsyncGenerator[str]:
        raise NotImplementedError

    async def pieces(self) -> AsyncGenerator[tuple[int, str]]:
        """Yield 0 and a piece of the text."""
        async with contextlib.aclosing(aiter(self)) as texts:
            async for text in texts:
                yield 0, text


class DelegatedGeneration:
    """A generation that reports what another one does. Subclasses may replace `_generation`."""

    def __init__(self, generation: RunningGeneration) -> None:
        self._generation = generation

    @property
    def model(self) -> str:
        """See `RunningGeneration`."""
        return self._generation.model

    @property
    def prompt(self) -> PromptStats | None:
        """See `RunningGeneration`."""
        return self._generation.prompt

    @property
    def tokens(self) -> int:
        """See `RunningGeneration`."""
        return self._generation.tokens

    @property
    def model_ms(self) -> float:
        """See `RunningGeneration`."""
        return self._generation.model_ms

    @property
    def ended(self) -> bool:
        """See `RunningGeneration`."""
        return self._generation.ended

    @property
    def surprises(self) -> Sequence[Surprise]:
        """See `RunningGeneration`."""
        return self._generation.surprises

    @property
    def metadata(self) -> Mapping[str, str]:
        """See `RunningGeneration`."""
        return self._generation.metadata


class Generator(Protocol):
    """Generates completions."""

    def generate(self, request: GenerationRequest, urgency: Urgency | None = None) -> RunningGeneration:
        """Start to generate; the iteration raises the errors. A generator may make fewer candidates than asked for."""
        ...


class Reader(Protocol):
    """Evaluates the prompt up to the decision."""

    async def read(self, slot: str, cursor: Cursor, urgency: Urgency | None = None) -> Reading:
        """Return what the model says about retrieving at `cursor`."""
        ...


class GeneratorProvider(Protocol):
    """Gives each request its generator and its reader.

    `decides`: its reader can decide even if the local model cannot. `local`: the generator runs on this machine, so
    completions may be generated ahead at no cost to anyone.
    """

    decides: bool
    local: bool

    def generator(self, local: Engine) -> Generator:
        """Return the generator to use now. `local` runs the model that decides, and is the fallback."""
        ...

    def reader(self, local: Engine) -> Reader:
        """Return the reader to use now."""
        ...

    def withholds(self, cursor: Cursor) -> str:
        """Why the local model has to write at `cursor`, because the text there must not leave this machine; or ""."""
        ...

    async def warm_up(self) -> None:
        """Load what a request needs. Failures are reported, not raised."""

    async def forget(self, slots: str) -> None:
        """Free the cache of the slots whose names begin with `slots`."""

    async def close(self) -> None:
        """Free everything."""


class SameModel:
    """The model that decides also generates."""

    decides = False
    local = True

    def generator(self, local: Engine) -> Generator:
        """Return `local`."""
        return local

    def reader(self, local: Engine) -> Reader:
        """Return `local`."""
        return local

    def withholds(self, cursor: Cursor) -> str:
        """Nothing: this is the local model."""
        return ""

    async def warm_up(self) -> None:
        """Do nothing: the engine is loaded anyway."""

    async def forget(self, slots: str) -> None:
        """Do nothing: the engine itself is told to forget."""

    async def close(self) -> None:
        """Do nothing."""


class StartedGeneration(DelegatedGeneration):
    """A generation that runs before its text is asked for: the plain one, beside the decision (paper, section 6.3)."""

    def __init__(self, generation: RunningGeneration) -> None:
        super().__init__(generation)
        self._pieces: asyncio.Queue[tuple[int, str] | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._advance())

    async def __aiter__(self) -> AsyncGenerator[str]:
        async with contextlib.aclosing(self.pieces()) as pieces:
            async for candidate, text in pieces:
                if candidate == 0:
                    yield text

    async def pieces(self) -> AsyncGenerator[tuple[int, str]]:
        """Yield the pieces that are there already at once, then the others as they come."""
        try:
            while (piece := await self._pieces.get()) is not None:
                yield piece
            await self._task  # raises the generation's error
        finally:
            await self.cancel()

    async def cancel(self) -> None:
        """End the generation, wherever it runs."""
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.exception()  # mark the error as retrieved; nothing uses it

    async def _advance(self) -> None:
        try:
            async with contextlib.aclosing(self._generation.pieces()) as pieces:
                async for piece in pieces:
                    self._pieces.put_nowait(piece)
        finally:
            self._pieces.put_nowait(None)
