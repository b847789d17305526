"""How the end-to-end tests look at a server: its family of processes, what it showed, what it logged."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from lsp_server.client import Client, Message
from lsp_server.text import Position

Start = Callable[..., Coroutine[Any, Any, Client]]
SERVER = Path(sys.executable).with_name("repoformer-lsp")


@dataclass(frozen=True)
class Workspace:
    """A folder of files, and the cursor in one of them."""

    root: Path
    file: Path
    text: str
    cursor: Position

    @property
    def uri(self) -> str:
        return self.file.as_uri()


def family_of(pid: int) -> list[psutil.Process]:
    """A process and all its children; empty where it has ended."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


async def all_gone(family: list[psutil.Process]) -> None:
    """Fail unless every one of these processes ends soon."""
    _, alive = await asyncio.to_thread(psutil.wait_procs, family, 20)
    assert [" ".join(process.cmdline()) for process in alive] == []


async def ready(client: Client) -> Message:
    """Wait until the model is loaded and the workspace indexed."""
    status: Message = await client.seen("repoformer/status", lambda status: status["state"] == "ready")
    return status


async def logged(client: Client, text: str) -> str:
    """Wait for a line in the editor's output window."""
    line: str = (await client.seen("window/logMessage", lambda params: text in params["message"]))["message"]
    return line


def shown(client: Client) -> list[str]:
    """What popped up so far."""
    return [sent["params"]["message"] for sent in client.received if sent["method"] == "window/showMessage"]


def accepted(text: str, item: Message) -> str:
    """`text` with an item accepted; for one-unit-a-character encodings."""
    lines = text.split("\n")
    start, end = item["range"]["start"], item["range"]["end"]
    line = lines[start["line"]]
    lines[start["line"]] = line[: start["character"]] + item["insertText"] + line[end["character"] :]
    return "\n".join(lines)
