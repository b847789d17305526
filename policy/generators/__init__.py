"""Choose the model that generates the completion after the decision.

With `SameModel`, the model that decides also generates, from the KV cache of the decision. With `larger.Larger`,
another GGUF on this machine generates, and the Repoformer only decides (the paper's "plug-and-play", section 5.4). With
`server.Server`, an OpenAI-compatible server generates, and may also decide. The latter two fall back to the local model
while they are unavailable, so that no request waits for them.

A generator has the same interface as `policy.engine.client.Engine`.
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
    """A generation in progress. Iterate over it to get its text in pieces; leaving the iteration ends the generation.

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
        """Yield the number of a candidate and a piece of its text."""
        ...


class SingleCandidate:
    """A generation of one candidate, whatever number was requested."""

    @property
    def model_ms(self) -> float:
        """0: no time is spent in llama.cpp on this machine."""
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
        """Yield (0, piece) for each piece of the text."""
        async with contextlib.aclosing(aiter(self)) as texts:
            async for text in texts:
                yield 0, text


class DelegatedGeneration:
    """A generation that passes on another one. Subclasses may replace `_generation`."""

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
        """Start a generation; iterating over it raises its errors.

        A generator may make fewer candidates than requested.
        """
        ...


class Reader(Protocol):
    """Evaluates the prompt up to the decision."""

    async def read(self, slot: str, cursor: Cursor, urgency: Urgency | None = None) -> Reading:
        """Return the model's answer to the question whether to retrieve at `cursor`."""
        ...


class GeneratorProvider(Protocol):
    """Provides the generator and the reader of each request.

    `decides` says that its reader can decide even if the local model cannot. `local` says that the generator runs on
    this machine, so generating completions ahead of requests costs no other user anything.
    """

    decides: bool
    local: bool

    def generator(self, local: Engine) -> Generator:
        """Return the generator to use now. `local` is the engine of the model that decides, and the fallback."""
        ...

    def reader(self, local: Engine) -> Reader:
        """Return the reader to use now."""
        ...

    def withholds(self, cursor: Cursor) -> str:
        """Return why the local model has to generate at `cursor`: the text there must not leave this machine.

        Otherwise return "".
        """
        ...

    async def warm_up(self) -> None:
        """Load what a request needs. Failures are reported, not raised."""

    async def forget(self, slots: str) -> None:
        """Free the cache of the slots whose names begin with `slots`."""

    async def close(self) -> None:
        """Release all resources."""


class SameModel:
    """Generates with the model that decides."""

    decides = False
    local = True

    def generator(self, local: Engine) -> Generator:
        """Return `local`."""
        return local

    def reader(self, local: Engine) -> Reader:
        """Return `local`."""
        return local

    def withholds(self, cursor: Cursor) -> str:
        """Return "", because the local model generates."""
        return ""

    async def warm_up(self) -> None:
        """Do nothing: the engine is loaded in any case."""

    async def forget(self, slots: str) -> None:
        """Do nothing: the engine's own cache is cleared separately."""

    async def close(self) -> None:
        """Do nothing."""


class StartedGeneration(DelegatedGeneration):
    """A generation that runs before its text is requested.

    Usually it is the plain one, which runs during the decision (paper, section 6.3).
    """

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
        """Yield the pieces that have already arrived immediately, then the others as they arrive."""
        try:
            while (piece := await self._pieces.get()) is not None:
                yield piece
            await self._task  # raises the generation's error
        finally:
            await self.cancel()

    async def cancel(self) -> None:
        """End the generation."""
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
