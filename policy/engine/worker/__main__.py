"""The worker process: run one model for all servers of a user, one request at a time. Each request can be cancelled.

The main thread takes the requests from the `Scheduler` and runs them with llama.cpp. The `Listener` has its own thread
and exchanges messages with the servers. Each client has its own slots, so that two clients with the same file do not
replace each other's prompts in the KV cache. A common prefix of their prompts is copied instead of evaluated twice. If
no request arrives for `idle_minutes`, the model is unloaded, and the next request loads it again. Prompts that were
evaluated are saved to disk after a few seconds without a request.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from indexer.model import Chunk
from policy import tracing
from policy.engine import protocol
from policy.engine.endpoint import Endpoint
from policy.engine.memory import check_fits
from policy.engine.messages import PromptStats, Stop, Trial
from policy.engine.settings import EngineSettings
from policy.engine.worker.cache import Aborted
from policy.engine.worker.completion_model import CompletionModel, Done, longest_sequence
from policy.engine.worker.embedding import Embedder
from policy.engine.worker.listener import Listener
from policy.engine.worker.llama import Llama, build_info
from policy.engine.worker.saved_state import SavedStates
from policy.engine.worker.scheduler import ScheduledRequest, Scheduler
from policy.errors import EngineFailed, RepoformerError
from policy.models.shards import shards_of

SAVE_AFTER = 5.0  # seconds without a request before prompts are saved


class Worker:
    """Runs the requests of the scheduler, one after another."""

    def __init__(self) -> None:
        self.scheduler = Scheduler(self._abort)
        self._load_message: protocol.Message | None = None  # the message with which the model can be loaded again
        self._llama: Llama | None = None
        self._model: CompletionModel | Embedder | None = None
        self._worked_at = time.monotonic()
        self._unsaved = False  # whether a prompt may have been evaluated since the last one was saved

    def run(self) -> None:
        """Run requests until the process ends (`Listener` ends it)."""
        while True:
            if request := self.scheduler.take(self._patience()):
                self._serve(request)
                self._worked_at = time.monotonic()
                self._unsaved = isinstance(self._model, CompletionModel)
            elif self._unsaved:
                self._save()
            else:
                self._unload()

    def _patience(self) -> float | None:
        """Return the number of seconds until a prompt is saved or the model is unloaded, or None for never."""
        message = self._load_message
        if self._model is None or message is None:
            return None
        if self._unsaved:
            return max(0.0, self._worked_at + SAVE_AFTER - time.monotonic())
        if not (minutes := message["settings"]["idle_minutes"]):
            return None
        return max(0.0, self._worked_at + 60 * float(minutes) - time.monotonic())

    def _save(self) -> None:
        """Save one prompt that is not saved yet, unless a request arrives."""
        try:
            self._unsaved = isinstance(self._model, CompletionModel) and self._model.save(self._waiting)
        except EngineFailed as error:
            self._unsaved = False
            _log(str(error))

    def _waiting(self) -> bool:
        return self.scheduler.waiting

    def _serve(self, request: ScheduledRequest) -> None:
        tracing.collect(request.arrived if request.message.get("trace") else None, "queue")
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
            with contextlib.suppress(OSError):  # the process that reads this output may have ended
                traceback.print_exc()
        finally:
            self.scheduler.finish()

    def _abort(self, wanted: bool) -> None:
        if llama := self._llama:
            llama.abort(wanted)

    def _perform(self, request: ScheduledRequest) -> protocol.Message:
        message = request.message
        if message["op"] == "load":
            before = self._load_message
            if self._model is None:
                self._load_message = message
            try:
                return asdict(self._loaded().info())
            except BaseException:
                self._load_message = before  # a later request must not use a load message that failed
                raise
        for name in ("slot", "prefix"):
            if name in message:
                message[name] = f"{request.client.name}/{message[name]}"
        if message["op"] == "forget" and self._model is None:
            return {}
        model = self._loaded()
        if request.cancelled:  # the request may be cancelled while the model is loading
            raise Aborted
        if isinstance(model, Embedder):
            return self._embed(model, request)
        match message["op"]:
            case "measure":
                return asdict(model.measure())
            case "work":
                return asdict(model.work())
            case "read":
                cursor = protocol.cursor_from_json(message["cursor"])
                reading = model.read(message["slot"], cursor, whole=message["whole"])
                return asdict(replace(reading, queue_ms=request.queue_ms))
            case "warm":
                cursor = protocol.cursor_from_json(message["cursor"])
                used = model.warm(message["slot"], cursor, _chunks(message), whole=message["whole"])
                return {"chunks": [asdict(chunk) for chunk in used]}
            case "missing":
                cursor = protocol.cursor_from_json(message["cursor"])
                branches = [_unpack_chunks(chunks) for chunks in message["branches"]]
                return asdict(model.missing(cursor, branches, request.queue_ms, whole=message["whole"]))
            case "generate":
                return self._generate(model, request)
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
                for number, tried in model.try_all(trials):
                    self._send(request, "tried", number=number, **asdict(tried))
                return {}
            case "forget":
                model.forget(message["prefix"])
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

    def _generate(self, model: CompletionModel, request: ScheduledRequest) -> protocol.Message:
        message = request.message
        for event in model.generate(
            message["slot"],
            protocol.cursor_from_json(message["cursor"]),
            _chunks(message),
            message["max_tokens"],
            message["candidates"],
            whole=message["whole"],
        ):
            if isinstance(event, Done):
                return asdict(event)
            if isinstance(event, PromptStats):
                self._send(request, "prompt", **asdict(replace(event, queue_ms=request.queue_ms)))
            else:
                self._send(request, "text", **asdict(event))
        raise EngineFailed("the generation has no end event")

    def _loaded(self) -> CompletionModel | Embedder:
        """Return the model that the load message names. If the model is not loaded, load it and evaluate a first batch.

        A build of llama.cpp that crashes on this machine crashes in this call.
        """
        if self._model is None:
            if (message := self._load_message) is None:
                raise EngineFailed("no model is loaded")
            path, settings = Path(message["model"]), EngineSettings.from_json(message["settings"])
            if path.is_file() and not (settings.gpu_layers and build_info(settings.library)["gpu_offload"]):
                check_fits(path)
            longest = None if settings.embedding else partial(longest_sequence, message["budgets"])
            llama = Llama(path, settings, longest)
            model: CompletionModel | Embedder
            if settings.embedding:
                model = Embedder(llama)
            else:
                saved = _saved_states(path, settings, llama)
                model = CompletionModel(llama, message["layout"], message["budgets"], saved, parts=message["parts"])
            model.warm_up()
            self._llama, self._model = llama, model
        return self._model

    def _unload(self) -> None:
        """Unload the model and free its memory."""
        llama, self._llama, self._model = self._llama, None, None
        if llama:
            llama.close()

    def _send(self, request: ScheduledRequest, event: str, **values: object) -> None:
        if spans := tracing.collected():
            values["spans"] = spans
        request.client.send({"id": request.id, "event": event, **values})


def _chunks(message: protocol.Message) -> list[Chunk] | None:
    return _unpack_chunks(message["chunks"])


def _unpack_chunks(chunks: list[protocol.Message] | None) -> list[Chunk] | None:
    return None if chunks is None else [protocol.chunk_from_json(chunk) for chunk in chunks]


def _saved_states(model: Path, settings: EngineSettings, llama: Llama) -> SavedStates | None:
    """Return the saved prompts of a model with these settings, or None if nothing should be saved."""
    if not settings.saved_megabytes:
        return None
    files = [(str(file.resolve()), (status := file.stat()).st_size, status.st_mtime_ns) for file in shards_of(model)]
    evaluation = replace(settings, idle_minutes=0, saved_megabytes=0)
    return SavedStates(repr((files, evaluation, llama.state_key)), settings.saved_megabytes << 20, _log)


def _log(message: str) -> None:
    """Write a line to the log of the server that started this process."""
    with contextlib.suppress(OSError):  # the process that reads this output may have ended
        print(message, file=sys.stderr, flush=True)


def main(folder: str, name: str) -> int:
    """Serve at the endpoint `name` in `folder`, unless another process serves there. Return the exit code."""
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
