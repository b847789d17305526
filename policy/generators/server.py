"""An OpenAI-compatible server writes: vLLM, llama-server, whatever a team runs. It may decide, too.

The server is somewhere else, so anything may happen to a request, and none of it may happen to typing. A request that
fails before its first piece is written by the local model at once; so are the next ones, until it is time to try again
(`attempts.py`). Nothing is retried while somebody waits. What is wrong is told once, and once that it is over.

The decision, where the server makes it, is read off the `logprobs` of one token.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial

from indexer.model import Chunk, Cursor
from indexer.secrets import secret_spans
from policy.engine.client import Engine, PromptStats, Reading, Urgency, UsedChunk
from policy.errors import ServerUnavailable
from policy.generators import Generator, OneText, Reader, Running
from policy.generators.attempts import Attempts
from policy.generators.text import TextPrompts, Written
from policy.generators.wire import Event, Wire
from policy.prompting.truncation import within_reach

DECISION_TOKENS = frozenset({"<cc>", "<cfc_info>"})
MOST_LOGPROBS = 20  # what vLLM gives unless it is told otherwise; <cc> is among them or improbable


class Server:
    """Generates at `wire` with the server's `model`. `tell` gets what is wrong with it, and "" once nothing is."""

    def __init__(
        self,
        wire: Wire,
        model: str,
        prompts: TextPrompts,
        tell: Callable[[str], None],
        *,
        decides: bool = False,
        attempts: Attempts | None = None,
    ) -> None:
        self.decides = decides and prompts.selective
        self.local = False
        self._wire = wire
        self._model = model
        self._prompts = prompts
        self._tell = tell
        self._attempts = attempts or Attempts()

    def generator(self, local: Engine) -> Generator:
        """The server, with `local` behind it; `local` alone while the server is away."""
        return _WithFallback(self, local) if self._attempts.allowed() else local

    def reader(self, local: Engine) -> Reader:
        """The server, where it decides."""
        return _WithFallback(self, local) if self.decides and self._attempts.allowed() else local

    def withholds(self, cursor: Cursor) -> str:
        """Whether a prompt at `cursor` would hold something like a secret; chunks never do."""
        near = within_reach(cursor, self._prompts.budgets)
        secret = any(True for text in (near.prefix, near.suffix) for _ in secret_spans(text))
        return "the text around the cursor holds something like a password or a key" if secret else ""

    async def warm_up(self) -> None:
        """There is nothing to get ready: the first request tells whether the server is there."""

    async def forget(self, slots: str) -> None:
        """A server's cache is its own affair."""

    async def close(self) -> None:
        """Close the connection."""
        await self._wire.close()

    # -- requests -----------------------------------------------------------------------------------------------------

    def generate(self, cursor: Cursor, chunks: Sequence[Chunk] | None, max_tokens: int) -> ServerGeneration:
        """Ask for a completion; `ServerUnavailable` comes with the iteration."""
        started = time.perf_counter()
        written = self._prompts.generate(cursor, chunks)
        body = self._body(written, max_tokens)
        return ServerGeneration(
            self._wire.stream("completions", body), self._model or self._wire.host, written, chunks or (), started
        )

    async def read(self, cursor: Cursor) -> Reading:
        """Ask for the decision. Raises `ServerUnavailable`."""
        started = time.perf_counter()
        written = self._prompts.decide(cursor)
        built = time.perf_counter()
        body = {**self._body(written, 1), "logprobs": MOST_LOGPROBS, "stream": False}
        async with contextlib.aclosing(self._wire.stream("completions", body)) as events:
            async for event in events:
                likely = probabilities_of(event)
                if not likely:
                    break
                p_cc = max((likely[token] for token in DECISION_TOKENS & likely.keys()), default=0.0)
                return Reading(
                    p_cc=p_cc,
                    cc_is_top=p_cc == max(likely.values()),
                    first_p=None,
                    first_entropy=None,
                    prompt_tokens=len(written.prompt.tokens),
                    evaluated_tokens=0,
                    prompt_ms=(built - started) * 1e3,
                    prefill_ms=(time.perf_counter() - built) * 1e3,
                )
        raise ServerUnavailable(f"{self._wire.url} gives no logprobs: switch `serverDecides` off.", 60)

    def works(self) -> None:
        """It has answered."""
        self._attempts.succeeded()
        self._tell("")

    def fails(self, error: ServerUnavailable) -> None:
        """It could not be used."""
        self._attempts.failed(error.retry_after)
        self._tell(f"{error} The local model completes in its place.")

    def _body(self, written: Written, max_tokens: int) -> dict[str, object]:
        body: dict[str, object] = {"prompt": written.text, "max_tokens": max_tokens, "temperature": 0, "stream": True}
        if self._model:
            body["model"] = self._model
        if written.suffix is not None:
            body["suffix"] = written.suffix
        if stops := self._prompts.stops:
            body["stop"] = stops
        return body


class ServerGeneration(OneText):
    """A `Running` at a server. Tokens are counted by pieces, which is what most servers send."""

    def __init__(
        self, events: AsyncGenerator[Event], model: str, written: Written, chunks: Sequence[Chunk], started: float
    ) -> None:
        self.model = model
        self._events = events
        self._written = written
        self._chunks = chunks
        self._started = started
        self.prompt: PromptStats | None = None
        self.tokens = 0
        self.ended = False

    async def __aiter__(self) -> AsyncGenerator[str]:
        built = time.perf_counter()
        async with contextlib.aclosing(self._events) as events:
            async for event in events:
                text, reason = piece_of(event)
                self.ended = reason == "stop"
                if self.prompt is None:
                    self.prompt = self._stats(built)
                if text:
                    self.tokens += 1
                    yield text
                if reason:
                    return

    def _stats(self, built: float) -> PromptStats:
        prompt = self._written.prompt
        return PromptStats(
            prompt_tokens=len(prompt.tokens),
            evaluated_tokens=0,  # the server's affair
            context_tokens=prompt.context_tokens,
            left_trimmed=prompt.left_trimmed,
            right_trimmed=prompt.right_trimmed,
            chunks=tuple(UsedChunk(number, chunk.end_line) for number, chunk in enumerate(prompt.chunks)),
            prompt_ms=(built - self._started) * 1e3,
            prefill_ms=(time.perf_counter() - built) * 1e3,
        )


class _WithFallback:
    """The server, and the engine where the server fails."""

    def __init__(self, server: Server, local: Engine) -> None:
        self._server, self._local = server, local

    def generate(
        self,
        slot: str,
        cursor: Cursor,
        chunks: Sequence[Chunk] | None,
        max_tokens: int,
        *,
        candidates: int = 1,
        urgency: Urgency | None = None,
    ) -> Running:
        asked = self._server.generate(cursor, chunks, max_tokens)
        otherwise = partial(self._local.generate, slot, cursor, chunks, max_tokens, urgency=urgency)
        return _FallingBack(self._server, asked, otherwise)

    async def read(self, slot: str, cursor: Cursor, urgency: Urgency | None = None) -> Reading:
        try:
            reading = await self._server.read(cursor)
        except ServerUnavailable as error:
            self._server.fails(error)
            return await self._local.read(slot, cursor, urgency)
        self._server.works()
        return reading


class _FallingBack(OneText):
    """A generation at the server; one by the local model where not even a first piece came from there."""

    def __init__(self, server: Server, asked: Running, otherwise: Callable[[], Running]) -> None:
        self._server = server
        self._running = asked
        self._otherwise = otherwise

    @property
    def model(self) -> str:
        return self._running.model

    @property
    def prompt(self) -> PromptStats | None:
        return self._running.prompt

    @property
    def tokens(self) -> int:
        return self._running.tokens

    @property
    def model_ms(self) -> float:
        return self._running.model_ms

    @property
    def ended(self) -> bool:
        return self._running.ended

    async def __aiter__(self) -> AsyncGenerator[str]:
        told = False
        try:
            async with contextlib.aclosing(aiter(self._running)) as pieces:
                async for piece in pieces:
                    if not told:
                        self._server.works()
                        told = True
                    yield piece
            if not told:  # an empty answer is one, too
                self._server.works()
            return
        except ServerUnavailable as error:
            self._server.fails(error)
            if self._running.tokens:
                return  # half of an answer is shown as far as it is decided
        self._running = self._otherwise()
        async with contextlib.aclosing(aiter(self._running)) as pieces:
            async for piece in pieces:
                yield piece


def piece_of(event: Event) -> tuple[str, str]:
    """The text of an event, and why the generation ended, if it did. Raises `ServerUnavailable` for what is neither."""
    match event:
        case {"choices": [{"text": str(text), **choice}, *_]}:
            reason = choice.get("finish_reason")
            return text, reason if isinstance(reason, str) else ""
        case {"choices": []}:  # a last event that counts tokens
            return "", ""
    raise ServerUnavailable("The server answered with something that is no completion.")


def probabilities_of(event: Event) -> dict[str, float]:
    """How likely the first token's candidates are, by name; empty where the server does not tell.

    OpenAI's completions have a table; llama-server answers with the list that OpenAI's chat has.
    """
    match event:
        case {"choices": [{"logprobs": {"top_logprobs": [Mapping() as table, *_]}}, *_]}:
            pairs = list(table.items())
        case {"choices": [{"logprobs": {"content": [{"top_logprobs": [*rows]}, *_]}}, *_]}:
            pairs = [(row.get("token"), row.get("logprob")) for row in rows if isinstance(row, Mapping)]
        case _:
            return {}
    return {
        token: math.exp(min(value, 0.0))
        for token, value in pairs
        if isinstance(token, str) and isinstance(value, float | int)
    }
