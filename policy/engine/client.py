"""The server's side of a worker process: connect to it, send requests, find out why it ended.

`Engine` has a typed method for each request. Cancelling the task that awaits such a call also stops the native code in
the worker. When the process ends, every waiting call and every later call raises `EngineDied` with the reason. The
supervisor then connects to another worker.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from indexer.model import Chunk, Cursor
from policy import errors, tracing
from policy.engine import protocol
from policy.engine.connect import connect
from policy.engine.endpoint import Endpoint, Streams, runtime_dir
from policy.engine.messages import (
    Completed,
    GenerationRequest,
    Missing,
    ModelInfo,
    PromptStats,
    Reading,
    Surprise,
    Trial,
    Tried,
    Truth,
    Urgency,
    UsedChunk,
    Work,
)
from policy.engine.process import Process
from policy.engine.settings import EngineSettings
from policy.engine.speed import Speed
from policy.errors import EngineDied, EngineFailed, Preempted, RepoformerError
from policy.models.locate import name_of
from policy.prompting.prompt import Budgets
from policy.prompting.truncation import truncate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EXIT_TIMEOUT = 2.0  # seconds to wait for the end of a process whose connection is closed


class Generation:
    """A generation in progress. Iterate over it to get its text; leaving the iteration early ends the generation.

    If several candidates were requested, iterate over `pieces`, which also gives the number of each piece's candidate;
    0 is the greedy one. `model` is the name of the generating model, and `metadata` is its metadata. `prompt` is set
    before the first piece of text. `tokens` is the number of tokens generated so far. `ended` says whether the model
    itself ended the text; otherwise the token limit or the caller did. `model_ms` is the time inside llama.cpp so far,
    in milliseconds. `surprises` has the surprises of candidate 0.
    """

    def __init__(
        self, events: AsyncGenerator[protocol.Message], model: str, metadata: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._events = events
        self._length = 0
        self.model = model
        self.metadata = metadata
        self.surprises: list[Surprise] = []
        self.prompt: PromptStats | None = None
        self.tokens = 0
        self.model_ms = 0.0
        self.ended = False

    async def __aiter__(self) -> AsyncGenerator[str]:
        async with contextlib.aclosing(self.pieces()) as pieces:
            async for _candidate, text in pieces:
                yield text

    async def pieces(self) -> AsyncGenerator[tuple[int, str]]:
        """Yield each piece of text as (number of its candidate, text)."""
        async with contextlib.aclosing(self._events) as events:
            async for event in events:
                match event["event"]:
                    case "prompt":
                        self.prompt = _prompt_stats(_values(event))
                    case "text":
                        self.tokens, self.model_ms = event["tokens"], event["model_ms"]
                        if event["candidate"] == 0:
                            self._length += len(event["text"])
                            self.surprises += [Surprise(self._length, nats) for nats in event["surprises"]]
                        yield event["candidate"], event["text"]
                    case "done":
                        self.tokens, self.ended, self.model_ms = event["tokens"], event["ended"], event["model_ms"]


class Engine:
    """A connection to a worker process. Create it with `Engine.connect`.

    After `load`, `budgets` has the token budgets of the model's prompts.
    """

    def __init__(self, streams: Streams, pid: int, process: Process | None) -> None:
        self.pid = pid
        self.budgets = Budgets()
        self._reader, self._writer = streams
        self._process = process
        self._next_id = 0
        self._model = ""
        self._metadata: Mapping[str, str] = {}
        self._pending: dict[int, asyncio.Queue[protocol.Message]] = {}
        self._death: str | None = None
        self._crashed = False
        self._closing = False
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._receiving = asyncio.create_task(self._receive())

    @classmethod
    async def connect(cls, name: str, environment: Mapping[str, str], log: Callable[[str], None]) -> Engine:
        """Connect to the engine called `name` (`policy.engine.endpoint.identity`), and start it if it is not running.

        Raises `EngineDied` and `EngineUnavailable`.
        """
        return cls(*await connect(Endpoint(runtime_dir(), name), environment, log))

    async def load(
        self,
        model: Path,
        settings: EngineSettings,
        layout: str = "",
        budgets: Mapping[str, int] = MappingProxyType({}),
        parts: int = 1,
    ) -> ModelInfo:
        """Load `model`, unless it is loaded, and evaluate a first batch.

        A build of llama.cpp that crashes on this machine crashes in this call. `model` is an absolute path, because the
        worker has another current directory. `layout`, unless empty, and `budgets` override the model's metadata. The
        budgets of short prompts are these, divided by `parts` (`worker/prompts.py`). Raises `ModelMissing`,
        `ModelInvalid`, `EngineFailed` or `EngineDied`.
        """
        self._model = name_of(model)
        answer = await self._call(
            "load",
            model=str(model),
            settings=settings.to_json(),
            layout=layout,
            budgets=dict(budgets),
            parts=parts,
        )
        values = _values(answer)
        self.budgets = Budgets(**values["budgets"])
        self._metadata = values["metadata"]
        return ModelInfo(**{**values, "budgets": self.budgets})

    async def measure(self) -> Speed:
        """Return how fast the model runs on this machine. This takes a second or two.

        Raises `Preempted` if another request arrives before the measurement ends.
        """
        return Speed(**_values(await self._call("measure", Urgency(background=True))))

    async def work(self) -> Work:
        """Return what the engine has done for all its clients since it loaded the model."""
        return Work(**_values(await self._call("work")))

    async def read(self, slot: str, cursor: Cursor, urgency: Urgency | None = None, *, whole: bool = False) -> Reading:
        """Evaluate the prompt of `cursor` up to the decision, in the slot `slot` of the KV cache.

        If `whole` is true, the prompt is never a short one.
        """
        answer = await self._call("read", urgency, slot=slot, cursor=self._pack(cursor), whole=whole)
        return Reading(**_values(answer))

    async def warm(
        self, slot: str, cursor: Cursor, chunks: Sequence[Chunk] | None = None, *, whole: bool = True
    ) -> tuple[UsedChunk, ...]:
        """Evaluate in advance what a request at `cursor` needs. Return the chunks that fit into its prompt.

        If the request would use a short prompt, the whole prompt is evaluated after it, unless `whole` is false. Raises
        `Preempted` as soon as any request arrives.
        """
        urgency = Urgency(background=True)
        packed = {"cursor": self._pack(cursor), "chunks": _pack_chunks(chunks)}
        answer = await self._call("warm", urgency, slot=slot, whole=whole, **packed)
        return tuple(UsedChunk(**chunk) for chunk in answer["chunks"])

    async def missing(
        self,
        cursor: Cursor,
        branches: Sequence[Sequence[Chunk] | None],
        urgency: Urgency | None = None,
        *,
        whole: bool = False,
    ) -> Missing:
        """Return how many tokens of a request's prompts at `cursor` are not in the KV cache.

        Each of the `branches` has the chunks in a prompt, or is None for a prompt without chunks. If `whole` is true,
        no prompt is a short one.
        """
        packed = [_pack_chunks(chunks) for chunks in branches]
        answer = await self._call("missing", urgency, cursor=self._pack(cursor), branches=packed, whole=whole)
        return Missing(tuple(answer["tokens"]), tuple(answer["context_tokens"]), answer["queue_ms"])

    def generate(self, request: GenerationRequest, urgency: Urgency | None = None) -> Generation:
        """Return a generation, which starts when the caller iterates over it. The iteration raises its errors."""
        events = self._request(
            "generate",
            urgency,
            slot=request.slot,
            cursor=self._pack(request.cursor),
            chunks=_pack_chunks(request.chunks),
            max_tokens=request.max_tokens,
            candidates=request.candidates,
            whole=request.whole,
        )
        return Generation(events, self._model, self._metadata)

    async def try_all(self, trials: Sequence[Trial]) -> AsyncGenerator[tuple[int, Tried]]:
        """Run `trials` in parallel, using the whole cache. Yield the index and the result of each trial when it ends.

        Raises `EngineFailed` if a trial does not fit into the context. The results yielded before that remain valid.
        """
        packed = [
            {
                "cursor": self._pack(trial.cursor),
                "chunks": _pack_chunks(trial.chunks),
                "stop": asdict(trial.stop),
                "truth": trial.truth,
            }
            for trial in trials
        ]
        async with contextlib.aclosing(self._request("try_all", None, trials=packed)) as events:
            async for event in events:
                if event["event"] == "tried":
                    yield event["number"], _tried(event)

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one vector for each text, shape (texts, dimensions). The engine must be loaded with `embedding`."""
        answer = await self._call("embed", texts=list(texts))
        return protocol.vectors_from_json(answer["vectors"])

    async def forget(self, prefix: str) -> None:
        """Free the cache of every slot whose name begins with `prefix`."""
        await self._call("forget", prefix=prefix)

    async def close(self) -> None:
        """Disconnect. The process ends when its last client disconnects."""
        self._closing = True
        self._writer.close()
        await asyncio.wait({self._receiving})

    def _pack(self, cursor: Cursor) -> protocol.Message:
        return protocol.cursor_to_json(truncate(cursor, self.budgets))

    async def _call(self, operation: str, urgency: Urgency | None = None, **values: Any) -> protocol.Message:
        async with contextlib.aclosing(self._request(operation, urgency, **values)) as events:
            return await anext(events)

    async def _request(
        self, operation: str, urgency: Urgency | None, **values: Any
    ) -> AsyncGenerator[protocol.Message]:
        urgency = urgency or Urgency()
        if self._death is not None:
            raise EngineDied(self._death, crashed=self._crashed)
        self._next_id += 1
        request = self._next_id
        events: asyncio.Queue[protocol.Message] = asyncio.Queue()
        self._pending[request] = events
        over = False

        def rank(background: bool) -> None:
            with contextlib.suppress(EngineDied):
                self._write({"id": request, "op": "rank", "background": background})

        urgency.followers.add(rank)
        if tracing.writing():
            values["trace"] = True
        with tracing.span(f"engine: {operation}"):
            try:
                await self._send({"id": request, "op": operation, "background": urgency.background, **values})
                while True:
                    event = await events.get()
                    tracing.add(tracing.Recorded(*each) for each in event.pop("spans", ()))
                    tracing.mark(f"engine: {event['event']}")
                    over = event["event"] in {"done", "cancelled", "error"}
                    if event["event"] == "error":
                        error = _error(event)
                        if isinstance(error, EngineDied):
                            error.crashed = self._crashed
                        raise error
                    if event["event"] == "cancelled":
                        raise Preempted("interrupted by a request that the user is waiting for")
                    yield event
                    if over:
                        return
            finally:
                del self._pending[request]
                urgency.followers.discard(rank)
                if not over and self._death is None:
                    with contextlib.suppress(EngineDied):
                        self._write({"id": request, "op": "cancel"})

    async def _send(self, message: protocol.Message) -> None:
        self._write(message)
        with contextlib.suppress(OSError):  # after this error, `_receive` finds the reason and ends every call
            await self._writer.drain()

    def _write(self, message: protocol.Message) -> None:
        if self._death is not None or self._writer.is_closing():
            raise EngineDied(self._death or "the engine is shutting down")
        self._writer.write(protocol.pack(message))

    async def _receive(self) -> None:
        """Pass events to the calls that wait for them. When the connection ends, end all waiting calls."""
        try:
            while True:
                event = protocol.checked_event(await protocol.receive(self._reader))
                if waiting := self._pending.get(event["id"]):
                    waiting.put_nowait(event)
        except (asyncio.IncompleteReadError, OSError):  # on Windows, a broken connection raises `OSError`
            death = "the connection to the engine was closed" if self._closing else await self._reason()
        except ValueError as error:
            death = f"the engine (process {self.pid}) sent an invalid message ({error})"
        except BaseException:
            self._end("the server no longer reads from the engine")
            raise
        self._end(death)

    def _end(self, death: str) -> None:
        """End the connection. Every waiting call and every later call raises `EngineDied`."""
        self._death = death
        self._crashed = self._process is not None and self._process.crashed
        self._writer.close()
        for waiting in self._pending.values():
            waiting.put_nowait({"event": "error", "kind": EngineDied.__name__, "message": self._death})
        if not self.ended.done():
            self.ended.set_result(self._death)

    async def _reason(self) -> str:
        """Return why the connection is closed. Only the server that started the process knows how the process ended."""
        if self._process is None:
            return f"the engine (process {self.pid}) has ended; the log of the server that started it has the reason"
        await asyncio.wait({self._process.ended}, timeout=EXIT_TIMEOUT)
        return self._process.reason() if self._process.ended.done() else "the engine closed the connection"


def _values(event: protocol.Message) -> protocol.Message:
    return {key: value for key, value in event.items() if key not in {"id", "event"}}


def _pack_chunks(chunks: Sequence[Chunk] | None) -> list[protocol.Message] | None:
    return None if chunks is None else [protocol.chunk_to_json(chunk) for chunk in chunks]


def _prompt_stats(values: protocol.Message) -> PromptStats:
    return PromptStats(**{**values, "chunks": tuple(UsedChunk(**chunk) for chunk in values["chunks"])})


def _tried(values: protocol.Message) -> Tried:
    return Tried(
        Reading(**values["reading"]) if values["reading"] else None,
        _prompt_stats(values["prompt"]),
        Completed(
            **{
                **values["completed"],
                "surprises": tuple(values["completed"]["surprises"]),
                "ends": tuple(values["completed"]["ends"]),
            }
        ),
        Truth(**values["truth"]) if values["truth"] else None,
    )


def _error(event: protocol.Message) -> RepoformerError:
    kind = getattr(errors, event["kind"], EngineFailed)
    error: RepoformerError = kind(event["message"])
    return error
