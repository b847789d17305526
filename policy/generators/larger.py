"""A larger GGUF on this machine writes; the Repoformer decides.

It is an engine of its own, shared and supervised as the other is. Loading it may take a minute, and it may turn out not
to fit: until it is there the local model writes, so nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from indexer.model import Cursor
from policy.engine.client import Engine
from policy.engine.supervisor import Supervisor
from policy.errors import RepoformerError
from policy.generators import Generator, Reader


class Larger:
    """Generates with the model of `supervisor`. `tell` gets what is wrong with it, and "" once nothing is."""

    decides = False
    local = True

    def __init__(self, supervisor: Supervisor, tell: Callable[[str], None]) -> None:
        self._supervisor = supervisor
        self._tell = tell
        self._loading: asyncio.Task[None] | None = None

    def generator(self, local: Engine) -> Generator:
        """The larger model if it is loaded; else it is being loaded now, and `local` writes meanwhile."""
        if engine := self._supervisor.running:
            self._tell("")  # it may have come back by itself
            return engine
        if self._loading is None:
            self._loading = asyncio.create_task(self.warm_up())
        return local

    def reader(self, local: Engine) -> Reader:
        """The Repoformer."""
        return local

    def withholds(self, cursor: Cursor) -> str:
        """Nothing: the larger model is on this machine, too."""
        return ""

    async def warm_up(self) -> None:
        """Load the model."""
        try:
            await self._supervisor.engine()
            self._tell("")
        except RepoformerError as error:
            self._tell(f"{error} The local model completes in its place.")
        finally:
            self._loading = None

    async def forget(self, slots: str) -> None:
        """Give the cells back."""
        if engine := self._supervisor.running:
            await engine.forget(slots)

    async def close(self) -> None:
        """Leave the engine."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        await self._supervisor.close()
