"""A thread that does jobs one after the other, and that the end of the program does not wait for.

`concurrent.futures` would: its threads are joined when the interpreter exits, even if one reads a disk that does not
answer.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)


class JobThread:
    """Does jobs in the order in which they were submitted. A job that raises is logged, and the next one follows."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._lock = threading.Lock()

    def submit(self, job: Callable[[], object]) -> None:
        """Queue a job."""
        with self._lock:
            if self._thread.ident is None:
                self._thread.start()
        self._jobs.put(job)

    def close(self, seconds: float) -> bool:
        """Let the jobs that are queued end, for some seconds at most; tell whether they did."""
        self._jobs.put(None)
        with self._lock:
            if self._thread.ident is None:
                return True
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:
                _log.exception("a job of the index failed")
