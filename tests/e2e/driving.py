"""Helpers of the end-to-end tests: wait for messages of a server and for the end of its processes, accept items."""

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
    """Return the process `pid` and its descendants, or an empty list if the process has ended."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


async def all_gone(family: list[psutil.Process]) -> None:
    """Wait until all these processes end. Fail after 20 seconds."""
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
    """Return `text` with the completion item inserted.

    Columns count characters here, so the result is right only where the position encoding has one unit per character.
    """
    lines = text.split("\n")
    start, end = item["range"]["start"], item["range"]["end"]
    line = lines[start["line"]]
    lines[start["line"]] = line[: start["character"]] + item["insertText"] + line[end["character"] :]
    return "\n".join(lines)
