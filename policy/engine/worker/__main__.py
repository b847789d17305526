"""The worker process: one model, one request at a time, cancellable at any moment, for all servers of a user.

The main thread runs llama.cpp and takes its requests from the `Scheduler`; the `Listener` has a thread of its own and
talks to the servers. Each client has slots of its own, so that two windows on one file do not evict each other's
prompts; the common part of their prompts is copied all the same. A model without a request for a while is unloaded, and
loaded again with the next one.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from dataclasses import asdict
from functools import partial
from pathlib import Path

from indexer.model import Chunk
from policy.engine import protocol
from policy.engine.endpoint import Endpoint
from policy.engine.memory import check_fits
from policy.engine.messages import PromptStats, Stop, Trial
from policy.engine.settings import EngineSettings
from policy.engine.worker.cache import Aborted
from policy.engine.worker.embedding import Embedder
from policy.engine.worker.listener import Listener
from policy.engine.worker.llama import Llama, build_info
from policy.engine.worker.scheduler import ScheduledRequest, Scheduler
from policy.engine.worker.session import CompletionModel, Done, longest_sequence
from policy.errors import EngineFailed, RepoformerError


class Worker:
    """Performs requests, one after the other."""

    def __init__(self) -> None:
        self.scheduler = Scheduler(self._abort)
        self._order: protocol.Message | None = None  # the load message, to follow again after an unloading
        self._llama: Llama | None = None
        self._session: CompletionModel | Embedder | None = None
        self._worked_at = time.monotonic()

    def run(self) -> None:
        """Work until the process ends (`Listener` ends it)."""
        while True:
            if request := self.scheduler.take(self._patience()):
                self._serve(request)
                self._worked_at = time.monotonic()
            else:
                self._unload()

    def _patience(self) -> float | None:
        """Seconds until the model is to be unloaded; None for never."""
        if self._session is None or self._order is None or not (minutes := self._order["settings"]["idle_minutes"]):
            return None
        return max(0.0, self._worked_at + 60 * float(minutes) - time.monotonic())

    def _serve(self, request: ScheduledRequest) -> None:
        try:
            if request.cancelled:
                raise Aborted
            self._send(request, "done", **self._perform(request))
        except Aborted:
            self._send(request, "cancelled")
        except RepoformerError as error:
            self._send(request, "error", kind=type(error).__name__, message=str(error))
        except Exception as error:
            self._send(request, "error", kind=EngineFailed.__name__, message=f"{type(error).__name__}: {error}")
            with contextlib.suppress(OSError):  # whoever started this process, and reads what it prints, may be gone
                traceback.print_exc()
        finally:
            self.scheduler.finish()

    def _abort(self, wanted: bool) -> None:
        if llama := self._llama:
            llama.abort(wanted)

    def _perform(self, request: ScheduledRequest) -> protocol.Message:
        message = request.message
        if message["op"] == "load":
            before = self._order
            if self._session is None:
                self._order = message
            try:
                return asdict(self._loaded().info())
            except BaseException:
                self._order = before  # one that cannot be followed is not followed again after an unloading
                raise
        for name in ("slot", "prefix"):
            if name in message:
                message[name] = f"{request.client.name}/{message[name]}"
        if message["op"] == "forget" and self._session is None:
            return {}
        session = self._loaded()
        if request.cancelled:  # while it loaded
            raise Aborted
        if isinstance(session, Embedder):
            return self._embed(session, request)
        match message["op"]:
            case "measure":
                return asdict(session.measure())
            case "read":
                return asdict(session.read(message["slot"], protocol.cursor_from_json(message["cursor"])))
            case "warm":
                used = session.warm(message["slot"], protocol.cursor_from_json(message["cursor"]), _chunks(message))
                return {"chunks": [asdict(chunk) for chunk in used]}
            case "generate":
                return self._generate(session, request)
            case "try_all":
                trials = [
                    Trial(
                        protocol.cursor_from_json(trial["cursor"]),
                        _chunks(trial),
                        Stop(**trial["stop"]),
                        trial["truth"],
                    )
                    for trial in message["trials"]
                ]
                for number, tried in session.try_all(trials):
                    self._send(request, "tried", number=number, **asdict(tried))
                return {}
            case "forget":
                session.forget(message["prefix"])
                return {}
            case unknown:
                raise EngineFailed(f"unknown operation {unknown!r}")

    def _embed(self, embedder: Embedder, request: ScheduledRequest) -> protocol.Message:
        match request.message["op"]:
            case "embed":
                return {"vectors": protocol.vectors_to_json(embedder.embed(request.message["texts"]))}
            case "forget":
                return {}
            case unknown:
                raise EngineFailed(f"unknown operation {unknown!r}")

    def _generate(self, session: CompletionModel, request: ScheduledRequest) -> protocol.Message:
        message = request.message
        for event in session.generate(
            message["slot"],
            protocol.cursor_from_json(message["cursor"]),
            _chunks(message),
            message["max_tokens"],
            message["candidates"],
        ):
            if isinstance(event, Done):
                return asdict(event)
            self._send(request, "prompt" if isinstance(event, PromptStats) else "text", **asdict(event))
        raise EngineFailed("the generation came to no end")

    def _loaded(self) -> CompletionModel | Embedder:
        """The model as it was ordered, loaded unless it is, with a first evaluation: what would crash crashes here."""
        if self._session is None:
            if (order := self._order) is None:
                raise EngineFailed("no model is loaded")
            model, settings = Path(order["model"]), EngineSettings.from_json(order["settings"])
            if model.is_file() and not (settings.gpu_layers and build_info(settings.library)["gpu_offload"]):
                check_fits(model)
            longest = None if settings.embedding else partial(longest_sequence, order["budgets"])
            llama = Llama(model, settings, longest)
            session: CompletionModel | Embedder = (
                Embedder(llama) if settings.embedding else CompletionModel(llama, order["layout"], order["budgets"])
            )
            session.warm_up()
            self._llama, self._session = llama, session
        return self._session

    def _unload(self) -> None:
        """Give the memory back."""
        llama, self._llama, self._session = self._llama, None, None
        if llama:
            llama.close()

    def _send(self, request: ScheduledRequest, event: str, **values: object) -> None:
        request.client.send({"id": request.id, "event": event, **values})


def _chunks(message: protocol.Message) -> list[Chunk] | None:
    chunks = message["chunks"]
    return None if chunks is None else [protocol.chunk_from_json(chunk) for chunk in chunks]


def main(folder: str, name: str) -> int:
    """Serve at the endpoint `name` in `folder`, unless another process does."""
    endpoint = Endpoint(Path(folder), name)
    if endpoint.claim() is None:
        return 0

    def leave() -> None:
        endpoint.leave()
        os._exit(0)

    worker = Worker()
    Listener(endpoint, worker.scheduler, leave).open()
    worker.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
