"""Helpers of the end-to-end tests, to observe a server: its processes, its messages, its log."""

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
    """Return a process and all its children, or an empty list if it has ended."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


async def all_gone(family: list[psutil.Process]) -> None:
    """Fail unless all these processes end within 20 seconds."""
    _, alive = await asyncio.to_thread(psutil.wait_procs, family, 20)
    assert [" ".join(process.cmdline()) for process in alive] == []


async def ready(client: Client) -> Message:
    """Wait until the model is loaded and the workspace indexed."""
    status: Message = await client.seen("repoformer/status", lambda status: status["state"] == "ready")
    return status


async def logged(client: Client, text: str) -> str:
    """Wait for a log message that contains `text`, and return it."""
    line: str = (await client.seen("window/logMessage", lambda params: text in params["message"]))["message"]
    return line


def shown(client: Client) -> list[str]:
    """Return the messages that the editor has shown to the user so far."""
    return [sent["params"]["message"] for sent in client.received if sent["method"] == "window/showMessage"]


def accepted(text: str, item: Message) -> str:
    """Return `text` after an item is accepted. Works for encodings with one unit per character."""
    lines = text.split("\n")
    start, end = item["range"]["start"], item["range"]["end"]
    line = lines[start["line"]]
    lines[start["line"]] = line[: start["character"]] + item["insertText"] + line[end["character"] :]
    return "\n".join(lines)
