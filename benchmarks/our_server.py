"""Run this project's server for a benchmark, as an editor does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from lsp_server.client import Client


@asynccontextmanager
async def our_server(root: Path, model: str, settings: Mapping[str, object], seconds: float) -> AsyncIterator[Client]:
    """Run the server for the folder `root` until the end of the `with` block. Return a client of it.

    `model` is the setting `model`, or empty for the default. Raises `TimeoutError` if the server is not ready after
    `seconds`.
    """
    command = [sys.executable, "-m", "lsp_server.cli", *(["--model", model] if model else [])]
    client = await Client.spawn(command, settings=dict(settings))
    try:
        await client.initialize([root], encodings=["utf-32"])
        ready = client.seen("repoformer/status", lambda status: status["state"] in {"ready", "error"})
        await asyncio.wait_for(ready, seconds)
        yield client
    finally:
        await client.close()


def position(before: str) -> tuple[int, int]:
    """Return the line and the character (in UTF-32) of a cursor after the text `before`."""
    return before.count("\n"), len(before) - before.rfind("\n") - 1
