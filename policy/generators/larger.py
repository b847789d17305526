"""Generate with a larger GGUF on this machine, while the Repoformer decides.

The larger model has its own engine, which is shared and supervised like the engine of the local model. Loading the
larger model can take a minute, and the model may not fit into memory. Until it is loaded, the local model generates, so
that no request waits.
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
    """Provides the model of `supervisor` as the generator.

    `report` is called once for each new problem, and with "" when the problem is solved.
    """

    decides = False
    local = True

    def __init__(self, supervisor: Supervisor, report: Callable[[str], None]) -> None:
        self._supervisor = supervisor
        self._notify = report
        self._reported: str | None = None
        self._loading: asyncio.Task[None] | None = None

    def generator(self, local: Engine) -> Generator:
        """Return the larger model if it is loaded. Otherwise start loading it and return `local`."""
        if engine := self._supervisor.running:
            self._report("")  # a restart by the supervisor may have solved the problem
            return engine
        if self._loading is None:
            self._loading = asyncio.create_task(self.warm_up())
        return local

    def reader(self, local: Engine) -> Reader:
        """Return `local`, because the local model decides."""
        return local

    def withholds(self, cursor: Cursor) -> str:
        """Return "", because the larger model is on this machine too."""
        return ""

    async def warm_up(self) -> None:
        """Load the larger model. Errors go to `report`."""
        try:
            await self._supervisor.engine()
            self._report("")
        except RepoformerError as error:
            self._report(f"{error} The local model is used instead.")
        finally:
            self._loading = None

    def _report(self, problem: str) -> None:
        if problem != self._reported:
            self._reported = problem
            self._notify(problem)

    async def forget(self, slots: str) -> None:
        """Free the cache of the slots whose names begin with `slots`."""
        if engine := self._supervisor.running:
            await engine.forget(slots)

    async def close(self) -> None:
        """Disconnect from the engine."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        await self._supervisor.close()
