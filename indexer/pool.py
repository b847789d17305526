"""Run tasks in worker processes. `Pool` sends batches of tasks and passes their outcomes to a callback.

Each worker has a thread in the server, which waits for the worker's answers. A worker that dies or takes too long is
replaced, and its tasks are retried one at a time. If a task fails again, its file is cut into windows without regard to
syntax. So only the file that crashes a grammar loses its structure, and no other file is affected.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import BinaryIO, cast

from indexer.rules import Reason
from indexer.worker import Outcome, Task, receive, send

_log = logging.getLogger(__name__)
_BATCH_SECONDS = 60.0  # time limit for a batch, which usually takes less than a second


class Pool:
    """A pool of `size` worker processes. `on_done` gets the outcomes of each batch, on a thread of the pool."""

    def __init__(self, size: int, on_done: Callable[[list[Outcome]], None]) -> None:
        self._on_done = on_done
        self._batches: queue.SimpleQueue[Sequence[Task] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, name=f"index-worker-{n}", daemon=True) for n in range(size)
        ]
        self._closing = threading.Event()
        self._workers: set[_Worker] = set()
        self.size = size

    def start(self) -> None:
        """Start the processes now, so that the first file need not wait until Python has started."""
        for thread in self._threads:
            thread.start()

    def submit(self, batch: Sequence[Task]) -> None:
        """Queue a batch. `on_done` gets its outcomes, in order, on another thread."""
        self._batches.put(batch)

    def close(self) -> None:
        """End the workers immediately, even while they run tasks."""
        self._closing.set()
        for _ in self._threads:
            self._batches.put(None)
        for worker in list(self._workers):
            worker.kill()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=0.2)

    def _serve(self) -> None:
        worker = self._start_worker()
        while (batch := self._batches.get()) is not None and not self._closing.is_set():
            outcomes: list[Outcome] = []
            worker = worker or self._start_worker()
            try:
                outcomes = worker.perform(batch) if worker else [self._perform_singly(task) for task in batch]
            except Exception as error:  # the worker died or its answer is invalid; the batch still needs outcomes
                if worker:
                    self._end(worker)
                worker = None
                if self._closing.is_set():
                    break
                _log.info("an index worker failed (%r); retrying its %d files one by one", error, len(batch))
                outcomes = [self._perform_singly(task) for task in batch]
            self._on_done(outcomes)
        if worker is not None:
            self._end(worker)

    def _perform_singly(self, task: Task) -> Outcome:
        """Run one task in a new worker. If that fails, run it in another new worker, with plain windows."""
        for attempt in (task, replace(task, plain=True)):
            worker = None if self._closing.is_set() else self._start_worker()
            if worker is None:
                break
            try:
                return worker.perform([attempt])[0]
            except Exception:
                if not attempt.plain:
                    _log.warning("parsing %s ended the worker process; the file is indexed as plain text", task.path)
            finally:
                self._end(worker)
        reason = Reason("unreadable", f"{task.path}: no worker process could read it")
        return Outcome(task.root, task.path, reason=reason, from_buffer=task.text is not None)

    def _start_worker(self) -> _Worker | None:
        """Start a worker. Return None if the system cannot start another process."""
        try:
            worker = _Worker()
        except OSError as error:
            _log.warning("cannot start an index worker (%s)", error)
            return None
        self._workers.add(worker)
        if self._closing.is_set():  # `close` may have run before this worker was added
            worker.kill()
        return worker

    def _end(self, worker: _Worker) -> None:
        self._workers.discard(worker)
        worker.end()


class _Worker:
    """One process and its pipes."""

    def __init__(self) -> None:
        # The worker runs in isolated mode (-I), with this process's search path. Otherwise, if the current directory is
        # a workspace with a `json.py`, the worker would import that file.
        start = f"import sys; sys.path[:] = {[at for at in sys.path if at]!r}; import indexer.worker as w; w.main()"
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )

    def perform(self, batch: Sequence[Task]) -> list[Outcome]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise EOFError
        watch = threading.Timer(_BATCH_SECONDS, self._process.kill)
        watch.daemon = True
        watch.start()
        try:
            send(cast("BinaryIO", stdin), list(batch))
            return cast("list[Outcome]", receive(cast("BinaryIO", stdout)))
        finally:
            watch.cancel()

    def kill(self) -> None:
        """End the process. A thread that waits for its answer gets an error."""
        with contextlib.suppress(OSError):
            self._process.kill()

    def end(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()
