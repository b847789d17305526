"""An embedding model as the index wants one: a function from texts to vectors.

The model runs where all native code runs, in a worker process of the engine, with its safer parameters and its memory
of what worked. The index knows nothing of event loops, so the connection lives on a thread of its own, and the function
blocks whoever calls it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from policy.engine.settings import EngineSettings
from policy.engine.supervisor import Supervisor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from indexer.retrieval.embedding import Embed


@contextmanager
def embedding_model(
    model: Path,
    settings: EngineSettings | None = None,
    *,
    memory: Path | None = None,
    log: Callable[[str], None] = lambda _line: None,
) -> Iterator[Embed]:
    """The function that embeds texts with a GGUF file, one row a text; it raises what `Supervisor.engine` does."""
    loop = asyncio.new_event_loop()
    supervisor = Supervisor(model, replace(settings or EngineSettings(), embedding=True), memory=memory, log=log)

    async def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        return await (await supervisor.engine()).embed(texts)

    thread = threading.Thread(target=loop.run_forever, name="embedding", daemon=True)
    thread.start()
    try:
        yield lambda texts: asyncio.run_coroutine_threadsafe(embed(texts), loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(supervisor.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def name_of(model: Path) -> str:
    """What vectors of a model are filed under: another file of the same name has other vectors."""
    status = model.stat()
    return f"{model.name} {status.st_size} {status.st_mtime_ns}"
