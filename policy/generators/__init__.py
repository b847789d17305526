"""Choose the model that generates the completion after the decision.

With `SameModel`, the model that decides also generates, and continues from the KV cache of the decision. With
`larger.Larger`, another GGUF on this machine generates, and the Repoformer only decides (the paper's "plug-and-play",
section 5.4). With `server.Server`, an OpenAI-compatible server generates, and may also decide. While the larger model
or the server is unavailable, the local model generates, so that no request waits.

The protocols `Generator` and `Reader` have the methods `generate` and `read` of `policy.engine.client.Engine`, so an
engine implements both.
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
    """A generation in progress.

    Iteration over this object yields the text of candidate 0 in pieces. `pieces` yields the texts of all candidates.
    If the caller ends the iteration early, the generation also ends.
    """

    @property
    def model(self) -> str:
        """The name of the model that generates."""

    @property
    def prompt(self) -> PromptStats | None:
        """Statistics of the prompt. None before the first piece."""

    @property
    def tokens(self) -> int:
        """The number of tokens generated so far."""

    @property
    def model_ms(self) -> float:
        """The time spent in llama.cpp so far, in milliseconds. 0 if a server generates."""

    @property
    def ended(self) -> bool:
        """Whether the model itself ended the text, and not a limit."""

    @property
    def surprises(self) -> Sequence[Surprise]:
        """The surprise of each token of candidate 0. Empty if the probabilities are unknown."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata of the model that generates. Empty if the metadata is unknown."""

    def __aiter__(self) -> AsyncGenerator[str]: ...

    def pieces(self) -> AsyncGenerator[tuple[int, str]]:
        """Yield pairs of a candidate's number and the next piece of its text."""
        ...


class SingleCandidate:
    """A generation of one candidate on a server, even if the request asks for several."""

    @property
    def model_ms(self) -> float:
        """Always 0, because llama.cpp on this machine is not used."""
        return 0.0

    @property
    def surprises(self) -> Sequence[Surprise]:
        """Always empty, because the probabilities are unknown."""
        return ()

    @property
    def metadata(self) -> Mapping[str, str]:
        """Always empty, because the metadata is unknown."""
        return {}

    def __aiter__(self) -> AsyncGenerator[str]:
        raise NotImplementedError

    async def pieces(self) -> AsyncGenerator[tuple[int, str]]:
        """Yield (0, piece) for each piece of the text."""
        async with contextlib.aclosing(aiter(self)) as texts:
            async for text in texts:
                yield 0, text


class DelegatedGeneration:
    """A generation whose properties are those of another generation, `_generation`, which subclasses may replace."""

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
        """Start a generation. Errors are raised when the caller iterates over the result.

        A generator may make fewer candidates than requested.
        """
        ...


class Reader(Protocol):
    """Evaluates the prompt up to the decision."""

    async def read(self, slot: str, cursor: Cursor, urgency: Urgency | None = None, *, whole: bool = False) -> Reading:
        """Return what the model predicts for the decision at `cursor`.

        `slot` names the sequence in the KV cache. If `whole` is true, the prompt is never a short one.
        """
        ...


class GeneratorProvider(Protocol):
    """Provides the generator and the reader of each request.

    `decides` says whether the provider's reader can decide even if the local model cannot. `local` says whether the
    generator runs on this machine. If it does not, no completion is generated in advance, because a server may have
    other users.
    """

    decides: bool
    local: bool

    def generator(self, local: Engine) -> Generator:
        """Return the generator to use now. `local` is the engine of the local model, which is also the fallback."""
        ...

    def reader(self, local: Engine) -> Reader:
        """Return the reader to use now. `local` is the engine of the local model."""
        ...

    def withholds(self, cursor: Cursor) -> str:
        """Return why the text around `cursor` must not leave this machine, so that the local model has to generate.

        Return "" if there is no such reason.
        """
        ...

    async def warm_up(self) -> None:
        """Load the model if that is necessary. A failure is reported to the user, not raised."""

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
        """Do nothing, because the local engine is loaded separately."""

    async def forget(self, slots: str) -> None:
        """Do nothing, because the cache of the local engine is cleared separately."""

    async def close(self) -> None:
        """Do nothing, because the local engine is closed separately."""


class StartedGeneration(DelegatedGeneration):
    """A generation that runs before a caller iterates over it.

    For example, the generation without chunks runs while the decision is made (paper, section 6.3).
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
        """Yield immediately the pieces that have already arrived, then each other piece when it arrives."""
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
            self._task.exception()  # without this call, asyncio logs that the error was never retrieved

    async def _advance(self) -> None:
        try:
            async with contextlib.aclosing(self._generation.pieces()) as pieces:
                async for piece in pieces:
                    self._pieces.put_nowait(piece)
        finally:
            self._pieces.put_nowait(None)
