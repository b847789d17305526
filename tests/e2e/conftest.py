"""The real server process, a workspace on disk, and the promise that no process is left behind.

Each test has caches and logs of its own; only the model file is shared.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from lsp_server.client import Client
from tests.e2e.driving import SERVER, Start, Workspace, all_gone, family_of


@pytest.fixture
def workspace(tmp_path: Path) -> Callable[[str], Workspace]:
    """Write files, each headed by `#- path`; one of them holds the cursor `‸`, which is taken out."""

    def write(marked: str) -> Workspace:
        root = tmp_path / "workspace"
        found = None
        for part in marked.lstrip("\n").split("#- ")[1:]:
            name, text = part.split("\n", 1)
            file = root / name.strip()
            file.parent.mkdir(parents=True, exist_ok=True)
            if "‸" in text:
                before, after = text.split("‸")
                found = (file, (before.count("\n"), len(before) - before.rfind("\n") - 1))
                text = before + after
            file.write_text(text, encoding="utf-8")
        assert found is not None, "no file has a cursor"
        return Workspace(root, found[0], found[0].read_text("utf-8"), found[1])

    return write


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """Environment of a person with empty caches and nothing stored."""
    return {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }


@pytest.fixture
async def start(home: dict[str, str]) -> AsyncIterator[Start]:
    """Start servers as editors do; afterwards each is shut down, and neither it nor a child of it may be left."""
    clients: list[Client] = []

    async def start(
        root: Path,
        *,
        model: Path | None = None,
        settings: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        **initialize: Any,
    ) -> Client:
        command: list[str | Path] = [SERVER, "--model", model] if model else [SERVER]
        client = await Client.spawn(command, settings=settings, env=home | (env or {}), cwd=cwd)
        clients.append(client)
        # The machine may be busy with other tests.
        await client.initialize([root], **{"options": {"patience": 60}, **initialize})
        return client

    yield start
    for client in clients:
        assert client.process is not None
        family = family_of(client.process.pid)
        if client.process.returncode is None:
            assert await asyncio.wait_for(client.close(), 30) == 0
        await all_gone(family)
