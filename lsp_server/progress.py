"""Progress bars in the editor (`$/progress`) for downloading and loading a model and for indexing."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lsprotocol import types
from pygls.exceptions import JsonRpcException

if TYPE_CHECKING:
    from lsp_server.context import HandlerContext

_TITLES = {
    "model": "Loading the completion model",
    "index": "Indexing the workspace",
    "pull": "Downloading the completion model",
}


@dataclass
class _Bar:
    token: str = field(default_factory=lambda: str(uuid.uuid4()))
    percent: int | None = None
    begun: bool = False


class ProgressBars:
    """Shows a progress bar for each task, if the client supports that.

    The server asks the client to create each bar. Until the client has answered, no progress is sent.
    """

    def __init__(self, ls: HandlerContext) -> None:
        self._ls = ls
        self._bars: dict[str, _Bar] = {}
        self._creating: set[asyncio.Task[None]] = set()

    def show(self, task: str, share: float | None) -> None:
        """Show which share of `task` is done, from 0 to 1, or None if it is unknown. At 1, the bar is removed."""
        if share is not None and share >= 1:
            self._end(task)
            return
        percent = None if share is None else int(share * 100)
        if bar := self._bars.get(task):
            if bar.begun and percent != bar.percent:
                report = types.WorkDoneProgressReport(percentage=percent)
                self._ls.work_done_progress.report(bar.token, report)
            bar.percent = percent
        elif self._wanted():
            bar = self._bars[task] = _Bar(percent=percent)
            creating = asyncio.create_task(self._begin(task, bar))
            self._creating.add(creating)
            creating.add_done_callback(self._creating.discard)

    def _wanted(self) -> bool:
        window = self._ls.client_capabilities.window
        return bool(window and window.work_done_progress)

    async def _begin(self, task: str, bar: _Bar) -> None:
        try:
            await self._ls.ask(
                types.WINDOW_WORK_DONE_PROGRESS_CREATE, types.WorkDoneProgressCreateParams(token=bar.token)
            )
        except JsonRpcException:
            return
        if self._bars.get(task) is bar:  # the task has not ended in the meantime
            bar.begun = True
            begin = types.WorkDoneProgressBegin(title=_TITLES[task], percentage=bar.percent)
            self._ls.work_done_progress.begin(bar.token, begin)

    def _end(self, task: str) -> None:
        bar = self._bars.pop(task, None)
        if bar and bar.begun:
            self._ls.work_done_progress.end(bar.token, types.WorkDoneProgressEnd())
