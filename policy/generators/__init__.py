"""Who writes the completion, once it is decided whether to retrieve.

`Own`: the model that decides also writes, from the KV cache of the decision. `larger.Larger`: another GGUF on this
machine writes, the Repoformer stays the policy (the paper's "plug-and-play", section 5.4). `server.Server`: an
OpenAI-compatible server writes, and may decide as well. The latter two fall back to the local model while they cannot
be used: a completion from a smaller model is worth more than none, and typing waits for neither.

What a request works with has one shape, which is that of `policy.engine.Engine`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from indexer.model import Chunk, Cursor
from policy.engine.client import Engine, PromptStats, Reading, Urgency


class Running(Protocol):
    """A generation on its way: iterate over its text; leaving the iteration early ends it at once.

    Several candidates come as `pieces`: whose text it is, and the text. `prompt` is there with the first piece.
    """

    @property
    def model(self) -> str:
        """Who writes."""

    @property
    def prompt(self) -> PromptStats | None:
        """What it started from."""

    @property
    def tokens(self) -> int:
        """How many there are so far."""

    @property
    def model_ms(self) -> float:
        """Milliseconds inside llama.cpp so far; 0 where somebody else's computer computes."""

    @property
    def ended(self) -> bool:
        """Whether the model has said all it had to say."""

    def __aiter__(self) -> AsyncGenerator[str]: ...

    def pieces(self) -> AsyncGenerator[tuple[int, str]]:
        """Candidate and text."""
        ...


class OneText:
    """A generation that has one candidate, whatever was asked for."""

    @property
    def model_ms(self) -> float:
        """None of this machine's time."""
        return 0.0

    def __aiter__(self) -> AsyncGenerator[str]:
        raise NotImplementedError

    async def pieces(self) -> AsyncGenerator[tuple[int, str]]:
        """Its text."""
        async with contextlib.aclosing(aiter(self)) as texts:
            async for text in texts:
                yield 0, text


class Generator(Protocol):
    """Writes completions."""

    def generate(
        self,
        slot: str,
        cursor: Cursor,
        chunks: Sequence[Chunk] | None,
        max_tokens: int,
        *,
        candidates: int = 1,
        urgency: Urgency | None = None,
    ) -> Running:
        """Begin to generate at `cursor`, without (None) or with cross-file context; errors come with the iteration.

        `candidates` is how many are wished for; not everybody gives more than one.
        """
        ...


class Reader(Protocol):
    """Reads up to the decision."""

    async def read(self, slot: str, cursor: Cursor, urgency: Urgency | None = None) -> Reading:
        """What a model thinks of the place."""
        ...


class Source(Protocol):
    """Where a request gets its generator from. `decides`: its reader is one that decides, whatever the local model.

    `local`: the text stays on this machine, so that nobody pays for what is written ahead.
    """

    decides: bool
    local: bool

    def generator(self, local: Engine) -> Generator:
        """Who writes now; `local`, which runs the model that decides, where nobody else does."""
        ...

    def reader(self, local: Engine) -> Reader:
        """Who is asked whether to retrieve."""
        ...

    def withholds(self, cursor: Cursor) -> str:
        """Why the local model has to write at `cursor`, because the text there must not leave this machine; or ""."""
        ...

    async def warm_up(self) -> None:
        """Get ready, without anybody waiting for it; what fails is told, not raised."""

    async def forget(self, slots: str) -> None:
        """Give back what is kept for slots whose names begin so."""

    async def close(self) -> None:
        """Give everything back."""


class Own:
    """The model that decides also writes."""

    decides = False
    local = True

    def generator(self, local: Engine) -> Generator:
        """The engine itself."""
        return local

    def reader(self, local: Engine) -> Reader:
        """The engine itself."""
        return local

    def withholds(self, cursor: Cursor) -> str:
        """Nothing: this is the local model."""
        return ""

    async def warm_up(self) -> None:
        """There is nothing to get ready."""

    async def forget(self, slots: str) -> None:
        """There is nothing that the engine would not forget."""

    async def close(self) -> None:
        """There is nothing to close."""


class Ahead:
    """A generation that goes on before somebody reads it: the plain one, beside the decision (paper, section 6.3)."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._pieces: asyncio.Queue[tuple[int, str] | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._advance())

    @property
    def model(self) -> str:
        """Of the generation."""
        return self._running.model

    @property
    def prompt(self) -> PromptStats | None:
        """Of the generation."""
        return self._running.prompt

    @property
    def tokens(self) -> int:
        """Of the generation."""
        return self._running.tokens

    @property
    def model_ms(self) -> float:
        """Of the generation."""
        return self._running.model_ms

    @property
    def ended(self) -> bool:
        """Of the generation."""
        return self._running.ended

    async def __aiter__(self) -> AsyncGenerator[str]:
        async with contextlib.aclosing(self.pieces()) as pieces:
            async for candidate, text in pieces:
                if candidate == 0:
                    yield text

    async def pieces(self) -> AsyncGenerator[tuple[int, str]]:
        """Of the generation, those that are there already at once."""
        try:
            while (piece := await self._pieces.get()) is not None:
                yield piece
            await self._task  # which raises what it ended with
        finally:
            await self.cancel()

    async def cancel(self) -> None:
        """It is the loser: end it, wherever it runs."""
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.exception()  # nobody wants to know

    async def _advance(self) -> None:
        try:
            async with contextlib.aclosing(self._running.pieces()) as pieces:
                async for piece in pieces:
                    self._pieces.put_nowait(piece)
        finally:
            self._pieces.put_nowait(None)
