"""Fixtures of the end-to-end tests: the real server process, and a workspace on disk.

Each test has its own caches and logs. Tests share only the model file. A test fails if a process runs after its end.
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
    """Return a function that writes the files of a marked text to disk, and returns the workspace.

    In the text, a line `#- path` begins each file, and `‸` in one of the files marks the cursor.
    """

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
    """The environment variables of a user with empty caches and no stored data."""
    return {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }


@pytest.fixture
async def start(home: dict[str, str]) -> AsyncIterator[Start]:
    """Return a function that starts a server as editors do. After the test, all servers and their children must end."""
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
        # A patience of a minute, because the machine may be busy with other tests.
        await client.initialize([root], **{"options": {"patience": 60}, **initialize})
        return client

    yield start
    for client in clients:
        assert client.process is not None
        family = family_of(client.process.pid)
        if client.process.returncode is None:
            assert await asyncio.wait_for(client.close(), 30) == 0
        await all_gone(family)
