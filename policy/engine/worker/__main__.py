"""The worker process: one model, one request at a time, cancellable at any moment, for all servers of a user.

The main thread runs llama.cpp and takes its requests from `Turns`; the other one (`Host`) speaks to the servers. Slots
are named apart by client, so that two windows on one file do not fight for one; what their prompts have in common is
copied all the same. A model that nobody has asked for in a while is unloaded, and loaded again with the next request.
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
from policy.engine.client import PromptStats, Stop, Trial
from policy.engine.endpoint import Place
from policy.engine.memory import check_fits
from policy.engine.settings import EngineSettings
from policy.engine.worker.cache import Aborted
from policy.engine.worker.embedding import Embedder
from policy.engine.worker.listener import Host
from policy.engine.worker.llama import Llama, build_info
from policy.engine.worker.scheduler import Turn, Turns
from policy.engine.worker.session import Done, Session, longest_sequence
from policy.errors import EngineFailed, RepoformerError


class Worker:
    """Performs requests, one after the other."""

    def __init__(self) -> None:
        self.turns = Turns(self._abort)
        self._order: protocol.Message | None = None  # the load message, to follow again after an unloading
        self._llama: Llama | None = None
        self._session: Session | Embedder | None = None
        self._worked_at = time.monotonic()

    def run(self) -> None:
        """Work until the process ends (`Host` ends it)."""
        while True:
            if turn := self.turns.take(self._patience()):
                self._serve(turn)
                self._worked_at = time.monotonic()
            else:
                self._unload()

    def _patience(self) -> float | None:
        """Seconds until the model is to be unloaded; None for never."""
        if self._session is None or self._order is None or not (minutes := self._order["settings"]["idle_minutes"]):
            return None
        return max(0.0, self._worked_at + 60 * float(minutes) - time.monotonic())

    def _serve(self, turn: Turn) -> None:
        try:
            if turn.cancelled:
                raise Aborted
            self._send(turn, "done", **self._perform(turn))
        except Aborted:
            self._send(turn, "cancelled")
        except RepoformerError as error:
            self._send(turn, "error", kind=type(error).__name__, message=str(error))
        except Exception as error:
            self._send(turn, "error", kind=EngineFailed.__name__, message=f"{type(error).__name__}: {error}")
            with contextlib.suppress(OSError):  # whoever started this process, and reads what it prints, may be gone
                traceback.print_exc()
        finally:
            self.turns.end()

    def _abort(self, wanted: bool) -> None:
        if llama := self._llama:
            llama.abort(wanted)

    def _perform(self, turn: Turn) -> protocol.Message:
        message = turn.message
        if message["op"] == "load":
            self._order = message
            return asdict(self._loaded().info())
        for name in ("slot", "prefix"):
            if name in message:
                message[name] = f"{turn.client.name}/{message[name]}"
        if message["op"] == "forget" and self._session is None:
            return {}
        session = self._loaded()
        if turn.cancelled:  # while it loaded
            raise Aborted
        if isinstance(session, Embedder):
            return self._embed(session, turn)
        match message["op"]:
            case "read":
                return asdict(session.read(message["slot"], protocol.cursor_from_json(message["cursor"])))
            case "warm":
                used = session.warm(message["slot"], protocol.cursor_from_json(message["cursor"]), _chunks(message))
                return {"chunks": [asdict(chunk) for chunk in used]}
            case "generate":
                return self._generate(session, turn)
            case "try_all":
                trials = [
                    Trial(
                        protocol.cursor_from_json(trial["cursor"]),
                        _chunks(trial),
                        Stop(**trial["stop"]),
                    )
                    for trial in message["trials"]
                ]
                for number, tried in session.try_all(trials):
                    self._send(turn, "tried", number=number, **asdict(tried))
                return {}
            case "forget":
                session.forget(message["prefix"])
                return {}
            case unknown:
                raise EngineFailed(f"unknown operation {unknown!r}")

    def _embed(self, embedder: Embedder, turn: Turn) -> protocol.Message:
        match turn.message["op"]:
            case "embed":
                return {"vectors": protocol.vectors_to_json(embedder.embed(turn.message["texts"]))}
            case "forget":
                return {}
            case unknown:
                raise EngineFailed(f"unknown operation {unknown!r}")

    def _generate(self, session: Session, turn: Turn) -> protocol.Message:
        message = turn.message
        for event in session.generate(
            message["slot"],
            protocol.cursor_from_json(message["cursor"]),
            _chunks(message),
            message["max_tokens"],
            message["candidates"],
        ):
            if isinstance(event, Done):
                return asdict(event)
            self._send(turn, "prompt" if isinstance(event, PromptStats) else "text", **asdict(event))
        raise EngineFailed("the generation came to no end")

    def _loaded(self) -> Session | Embedder:
        """The model as it was ordered, loaded unless it is, with a first evaluation: what would crash crashes here."""
        if self._session is None:
            if (order := self._order) is None:
                raise EngineFailed("no model is loaded")
            model, settings = Path(order["model"]), EngineSettings.from_json(order["settings"])
            if model.is_file() and not (settings.gpu_layers and build_info(settings.library)["gpu_offload"]):
                check_fits(model)
            longest = None if settings.embedding else partial(longest_sequence, order["budgets"])
            llama = Llama(model, settings, longest)
            session: Session | Embedder = (
                Embedder(llama) if settings.embedding else Session(llama, order["layout"], order["budgets"])
            )
            session.warm_up()
            self._llama, self._session = llama, session
        return self._session

    def _unload(self) -> None:
        """Give the memory back."""
        llama, self._llama, self._session = self._llama, None, None
        if llama:
            llama.close()

    def _send(self, turn: Turn, event: str, **values: object) -> None:
        turn.client.send({"id": turn.id, "event": event, **values})


def _chunks(message: protocol.Message) -> list[Chunk] | None:
    chunks = message["chunks"]
    return None if chunks is None else [protocol.chunk_from_json(chunk) for chunk in chunks]


def main(folder: str, name: str) -> int:
    """Serve at a place, unless another process does."""
    place = Place(Path(folder), name)
    if place.claim() is None:
        return 0

    def leave() -> None:
        place.leave()
        os._exit(0)

    worker = Worker()
    Host(place, worker.turns, leave).open()
    worker.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
