"""A thread that runs jobs one after the other, and that does not delay the end of the program.

`concurrent.futures` would delay it: the interpreter joins its threads at exit, even if one of them reads a disk that
does not respond.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)


class JobThread:
    """Runs jobs in the order in which they were submitted.

    An error that a job raises is logged, and the next job runs.
    """

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
        """Wait up to `seconds` for the queued jobs; return whether they have all run."""
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
