"""What a session reports while it closes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lsp_server.notices import Severity
from lsp_server.session import Session
from lsp_server.status import Status
from policy.models import locate


class Output:
    """Records the states that a client receives."""

    def __init__(self) -> None:
        self.states: list[str] = []
        self.ready = asyncio.Event()

    def show(self, severity: Severity, text: str) -> None: ...

    def report(self, status: Status) -> None:
        self.states.append(status.state)
        if status.state == "ready":
            self.ready.set()

    def show_progress(self, task: str, share: float | None) -> None: ...

    async def choose(self, text: str, actions: Sequence[str], otherwise: str) -> str | None:
        return None


async def test_a_session_that_closes_does_not_report_the_stopped_engine() -> None:
    output = Output()
    session = Session(output, {"model": str(locate.shipped()[0].path), "threads": 1})
    session.begin(encoding="utf-8", roots=(), options=None, client_process=None)
    session.start()
    await asyncio.wait_for(output.ready.wait(), 120)
    await session.close()
    assert output.states[-1] == "ready"
