"""The worker process: one model, one request at a time, cancellable at any moment.

Two threads. The main one runs llama.cpp. The other reads the pipe, so that a cancellation reaches a running
evaluation at once, and so that the end of the pipe, which means that the server is gone however it died, ends this
process too. Standard output carries the protocol; whatever native code prints goes to standard error.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from policy.engine import protocol
from policy.engine.cache import Aborted
from policy.engine.client import PromptStats, Stop, Trial
from policy.engine.llama import Llama
from policy.engine.session import Done, Session
from policy.engine.settings import EngineSettings
from policy.errors import EngineFailed, RepoformerError


class Worker:
    """Serves the requests that come in on one stream and answers on another."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._requests: queue.SimpleQueue[protocol.Message] = queue.SimpleQueue()
        self._lock = threading.Lock()  # guards the three below
        self._running: int | None = None
        self._cancelled: set[int] = set()
        self._llama: Llama | None = None
        self._session: Session | None = None

    def run(self) -> None:
        """Work until the stream ends, which ends the process."""
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        while True:
            self._serve(self._requests.get())

    def _listen(self) -> None:
        while (message := protocol.read(self._incoming)) is not None:
            if message["op"] == "cancel":
                self._cancel(message["id"])
            else:
                self._requests.put(message)
        os._exit(0)  # the main thread may be deep in native code; there is nothing to save

    def _cancel(self, request: int) -> None:
        with self._lock:
            if request == self._running:
                if self._llama:
                    self._llama.abort()
            else:
                self._cancelled.add(request)

    def _serve(self, message: protocol.Message) -> None:
        request: int = message["id"]
        with self._lock:
            if request in self._cancelled:
                self._cancelled.discard(request)
                self._send(request, "cancelled")
                return
            self._running = request
        try:
            self._send(request, "done", **self._perform(message))
        except Aborted:
            self._send(request, "cancelled")
        except RepoformerError as error:
            self._send(request, "error", kind=type(error).__name__, message=str(error))
        except Exception as error:
            traceback.print_exc()
            self._send(request, "error", kind=EngineFailed.__name__, message=f"{type(error).__name__}: {error}")
        finally:
            with self._lock:
                self._running = None
                # A cancellation of a request that had already ended must not linger.
                self._cancelled = {other for other in self._cancelled if other > request}
                if self._llama:
                    self._llama.abort(False)

    def _perform(self, message: protocol.Message) -> protocol.Message:
        if message["op"] == "load":
            return self._load(message)
        session = self._session
        if session is None:
            raise EngineFailed("no model is loaded")
        match message["op"]:
            case "warm_up":
                session.warm_up()
                return {}
            case "read":
                return asdict(session.read(message["slot"], protocol.cursor_from_json(message["cursor"])))
            case "generate":
                return self._generate(session, message)
            case "try_all":
                trials = [
                    Trial(
                        protocol.cursor_from_json(trial["cursor"]),
                        None if (chunks := trial["chunks"]) is None else list(map(protocol.chunk_from_json, chunks)),
                        Stop(**trial["stop"]),
                    )
                    for trial in message["trials"]
                ]
                return {"tried": [asdict(tried) for tried in session.try_all(trials)]}
            case "forget":
                session.forget(message["prefix"])
                return {}
            case unknown:
                raise EngineFailed(f"unknown operation {unknown!r}")

    def _generate(self, session: Session, message: protocol.Message) -> protocol.Message:
        chunks = message["chunks"]
        for event in session.generate(
            message["slot"],
            protocol.cursor_from_json(message["cursor"]),
            None if chunks is None else [protocol.chunk_from_json(chunk) for chunk in chunks],
            message["max_tokens"],
        ):
            if isinstance(event, Done):
                return asdict(event)
            self._send(message["id"], "prompt" if isinstance(event, PromptStats) else "text", **asdict(event))
        raise EngineFailed("the generation came to no end")

    def _load(self, message: protocol.Message) -> protocol.Message:
        llama = Llama(Path(message["model"]), EngineSettings.from_json(message["settings"]))
        with self._lock:
            self._llama = llama
        self._session = Session(llama, message["layout"], message["budgets"])
        return asdict(self._session.info())

    def _send(self, request: int, event: str, **values: Any) -> None:
        self._outgoing.write(protocol.pack({"id": request, "event": event, **values}))
        self._outgoing.flush()


def main() -> None:
    """Take the protocol's end of standard output away from everybody else, then serve."""
    protocol_fd = os.dup(sys.stdout.fileno())
    if sys.platform == "win32":
        import msvcrt

        for descriptor in (protocol_fd, sys.stdin.fileno()):
            msvcrt.setmode(descriptor, os.O_BINARY)
    outgoing = os.fdopen(protocol_fd, "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    Worker(sys.stdin.buffer, outgoing).run()


if __name__ == "__main__":
    main()
