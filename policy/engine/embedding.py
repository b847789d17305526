"""Make the index's embedding function, which turns texts into vectors, from a GGUF file.

Like all native code, the model runs in a worker process, and a crash leads to safer settings. The code of the index is
not asynchronous. Therefore the connection to the worker has an event loop in its own thread, and the embedding function
blocks its caller.
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
    """Yield a function that embeds texts with a GGUF file: n texts give an array of shape (n, dimensions).

    The function works only inside the `with` block. It raises the same errors as `Supervisor.engine`.
    """
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
    """Return the key under which a model's vectors are stored: its file's name, size and modification time."""
    status = model.stat()
    return f"{model.name} {status.st_size} {status.st_mtime_ns}"
