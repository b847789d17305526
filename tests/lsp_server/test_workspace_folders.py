"""What a session reports about its workspace folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lsp_server.notices import Severity
from lsp_server.session import Session
from lsp_server.status import Status


class Output:
    """Records the messages that a client shows."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def show(self, severity: Severity, text: str) -> None:
        self.messages.append(text)

    def report(self, status: Status) -> None: ...

    def show_progress(self, task: str, share: float | None) -> None: ...

    async def choose(self, text: str, actions: Sequence[str], otherwise: str) -> str | None:
        return None


async def test_folders_that_do_not_exist_or_cannot_be_checked_are_reported(tmp_path: Path) -> None:
    output = Output()
    session = Session(output, {})
    missing, too_long = tmp_path / "missing", tmp_path / ("d" * 300)
    session.set_roots((tmp_path, missing, too_long))
    (message,) = output.messages
    assert message.endswith(f"do not exist and are not indexed: {missing}, {too_long}.")
