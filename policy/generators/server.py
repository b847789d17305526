"""Generate with an OpenAI-compatible server (vLLM, llama-server), which can also make the decision.

A failure of the server must not delay completions. If a request fails before its first piece of text arrives, the local
model answers this request and all further requests until the server may be used again (`retry.py`). The user sees each
problem once.

To decide, the server generates one token, and its `logprobs` give the probability of `<cc>`.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from indexer.model import Chunk, Cursor
from indexer.secrets import FARTHEST, secret_spans
from policy.engine.client import Engine
from policy.engine.messages import GenerationRequest, PromptStats, Reading, Urgency, UsedChunk
from policy.errors import ServerUnavailable
from policy.generators import DelegatedGeneration, Generator, Reader, RunningGeneration, SingleCandidate
from policy.generators.retry import RetrySchedule
from policy.generators.text import TextPrompt, TextPrompts
from policy.generators.wire import Event, Wire
from policy.prompting.truncation import truncate

DECISION_TOKENS = frozenset({"<cc>", "<cfc_info>"})
MAX_LOGPROBS = 20  # vLLM's default limit; if <cc> is not among the 20 most probable tokens, P(<cc>) counts as 0
# If P(`<cc>`) is less than this, it does not matter which value it has.
NEGLIGIBLE = 0.01


class Server:
    """Provides the model `model` of a server as the generator. `wire` is the connection to the server.

    `report` is called with the text of each failure, and with "" after each success.
    """

    def __init__(
        self,
        wire: Wire,
        model: str,
        prompts: TextPrompts,
        report: Callable[[str], None],
        *,
        decides: bool = False,
        retry: RetrySchedule | None = None,
    ) -> None:
        self.decides = decides and prompts.selective
        self.local = False
        self._wire = wire
        self._model = model
        self._prompts = prompts
        self._report = report
        self._retry = retry or RetrySchedule()

    def generator(self, local: Engine) -> Generator:
        """Return the server with `local` as its fallback, or `local` alone while the server is unavailable."""
        return _ServerWithFallback(self, local) if self._retry.allowed() else local

    def reader(self, local: Engine) -> Reader:
        """Return the server if it decides and is available, otherwise `local`."""
        return _ServerWithFallback(self, local) if self.decides and self._retry.allowed() else local

    def withholds(self, cursor: Cursor) -> str:
        """Return a reason not to send the text around `cursor` if this text seems to contain a secret, else ""."""
        near = truncate(cursor, self._prompts.budgets)
        # A secret inside the prompt may be recognizable only by the text before or after the prompt.
        before = cursor.prefix[-len(near.prefix) - FARTHEST :]
        after = cursor.suffix[: len(near.suffix) + FARTHEST]
        start, end = max(len(before) - len(near.prefix), 0), len(before) + len(near.suffix)
        spans = secret_spans(before + after, cursor.language)
        secret = any(first < end and start < last for first, last in spans)
        return "the text around the cursor contains something like a password or a key" if secret else ""

    async def warm_up(self) -> None:
        """Do nothing, because the first request shows whether the server is available."""

    async def forget(self, slots: str) -> None:
        """Do nothing, because the server manages its own cache."""

    async def close(self) -> None:
        """Close the connection."""
        await self._wire.close()

    # -- requests -----------------------------------------------------------------------------------------------------

    def generate(self, request: GenerationRequest) -> ServerGeneration:
        """Request one candidate from the server. Iteration over the result can raise `ServerUnavailable`."""
        started = time.perf_counter()
        text_prompt = self._prompts.generate(request.cursor, request.chunks)
        events = self._wire.stream("completions", self._body(text_prompt, request.max_tokens))
        return ServerGeneration(events, self._model or self._wire.host, text_prompt, request.chunks or (), started)

    async def read(self, cursor: Cursor) -> Reading:
        """Request the reading, which has the values for the decision, from the server. Raises `ServerUnavailable`."""
        started = time.perf_counter()
        text_prompt = self._prompts.decide(cursor)
        built = time.perf_counter()
        body = {**self._body(text_prompt, 1), "logprobs": MAX_LOGPROBS, "stream": False}
        async with contextlib.aclosing(self._wire.stream("completions", body)) as events:
            async for event in events:
                likely = probabilities_of(event)
                if not likely:
                    break
                if likely.get("", 0.0) >= NEGLIGIBLE and not DECISION_TOKENS & likely.keys():
                    # llama-server hides the text of special tokens, and `<cc>` may be one of them. vLLM shows them, but
                    # a number for which the tokenizer has no token also has no text.
                    raise ServerUnavailable(
                        f"{self._wire.host} hides special tokens in `logprobs`. If it is llama-server, start it with "
                        "`--special`. Otherwise, turn off the setting `serverDecides`.",
                        60,
                    )
                p_cc = max((likely[token] for token in DECISION_TOKENS & likely.keys()), default=0.0)
                return Reading(
                    p_cc=p_cc,
                    cc_is_top=p_cc == max(likely.values()),
                    first_p=None,
                    first_entropy=None,
                    prompt_tokens=len(text_prompt.prompt.tokens),
                    evaluated_tokens=0,
                    prompt_ms=(built - started) * 1e3,
                    prefill_ms=(time.perf_counter() - built) * 1e3,
                )
        raise ServerUnavailable(f"{self._wire.host} returns no logprobs. Turn off the setting `serverDecides`.", 60)

    def record_success(self) -> None:
        """Record that the server answered, and report that the problem is solved."""
        self._retry.succeeded()
        self._report("")

    def record_failure(self, error: ServerUnavailable) -> None:
        """Record and report that the server could not be used. The local model is used until the next try."""
        self._retry.failed(error.retry_after)
        self._report(f"{error} The local model is used instead.")

    def _body(self, text_prompt: TextPrompt, max_tokens: int) -> dict[str, object]:
        body: dict[str, object] = {
            "prompt": text_prompt.text,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
        }
        if self._model:
            body["model"] = self._model
        if text_prompt.suffix is not None:
            body["suffix"] = text_prompt.suffix
        if stops := self._prompts.stops:
            body["stop"] = stops
        return body


class ServerGeneration(SingleCandidate):
    """A `RunningGeneration` on a server.

    `tokens` counts each piece of text as one token, because most servers send the tokens one by one.
    """

    def __init__(
        self,
        events: AsyncGenerator[Event],
        model: str,
        text_prompt: TextPrompt,
        chunks: Sequence[Chunk],
        started: float,
    ) -> None:
        self.model = model
        self._events = events
        self._text_prompt = text_prompt
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
                if isinstance(name := event.get("model"), str) and name:
                    self.model = name  # some servers ignore the requested model and use the one that they have
                if self.prompt is None:
                    self.prompt = self._stats(built)
                if text:
                    self.tokens += 1
                    yield text
                if reason:
                    return
        if not self.tokens:  # llama-cpp-python's server ends an answer if it receives another request
            raise ServerUnavailable("The server ended its answer before the first token.")

    def _stats(self, built: float) -> PromptStats:
        prompt = self._text_prompt.prompt
        return PromptStats(
            prompt_tokens=len(prompt.tokens),
            evaluated_tokens=0,  # only tokens that this machine evaluates count
            context_tokens=prompt.context_tokens,
            left_trimmed=prompt.left_trimmed,
            right_trimmed=prompt.right_trimmed,
            chunks=tuple(UsedChunk(number, chunk.end_line) for number, chunk in enumerate(prompt.chunks)),
            prompt_ms=(built - self._started) * 1e3,
            prefill_ms=(time.perf_counter() - built) * 1e3,
        )


class _ServerWithFallback:
    """The server as a generator and a reader. If a request to it fails, the local engine answers the request."""

    def __init__(self, server: Server, local: Engine) -> None:
        self._server, self._local = server, local

    def generate(self, request: GenerationRequest, urgency: Urgency | None = None) -> RunningGeneration:
        fallback = partial(self._local.generate, replace(request, candidates=1), urgency)
        return _FallbackGeneration(self._server, self._server.generate(request), fallback)

    async def read(self, slot: str, cursor: Cursor, urgency: Urgency | None = None, *, whole: bool = False) -> Reading:
        try:
            reading = await self._server.read(cursor)
        except ServerUnavailable as error:
            self._server.record_failure(error)
            return await self._local.read(slot, cursor, urgency, whole=whole)
        self._server.record_success()
        return reading


class _FallbackGeneration(DelegatedGeneration, SingleCandidate):
    """A generation on the server. If it fails before its first piece, the local model generates instead."""

    def __init__(
        self, server: Server, generation: RunningGeneration, fallback: Callable[[], RunningGeneration]
    ) -> None:
        super().__init__(generation)
        self._server = server
        self._fallback = fallback

    async def __aiter__(self) -> AsyncGenerator[str]:
        answered = False
        try:
            async with contextlib.aclosing(aiter(self._generation)) as pieces:
                async for piece in pieces:
                    if not answered:
                        self._server.record_success()
                        answered = True
                    yield piece
            if not answered:  # an empty answer is also a success
                self._server.record_success()
            return
        except ServerUnavailable as error:
            self._server.record_failure(error)
            if self._generation.tokens:
                return  # the caller already has a part of the text, which the local model cannot continue
        self._generation = self._fallback()
        async with contextlib.aclosing(aiter(self._generation)) as pieces:
            async for piece in pieces:
                yield piece


def piece_of(event: Event) -> tuple[str, str]:
    """Return the text of `event`, and the reason why the generation ended ("" if it has not ended).

    Raises `ServerUnavailable` if the event is not part of a completion.
    """
    match event:
        case {"choices": [{"text": str(text), **choice}, *_]}:
            reason = choice.get("finish_reason")
            return text, reason if isinstance(reason, str) else ""
        case {"choices": []}:  # the last event, which has only token counts
            return "", ""
    raise ServerUnavailable("The server's answer is not a completion.")


def probabilities_of(event: Event) -> dict[str, float]:
    """Return the most probable first tokens and their probabilities. The result is empty if `event` has no logprobs.

    The probabilities of tokens with the same text are added.

    In OpenAI's completions API, the logprobs are an object. In llama-server and OpenAI's chat API, they are a list.
    """
    match event:
        case {"choices": [{"logprobs": {"top_logprobs": [Mapping() as table, *_]}}, *_]}:
            pairs = list(table.items())
        case {"choices": [{"logprobs": {"content": [{"top_logprobs": [*rows]}, *_]}}, *_]}:
            pairs = [(row.get("token"), row.get("logprob")) for row in rows if isinstance(row, Mapping)]
        case _:
            return {}
    likely: dict[str, float] = {}
    for token, value in pairs:
        if isinstance(token, str) and isinstance(value, float | int):
            likely[token] = likely.get(token, 0.0) + math.exp(min(value, 0.0))
    return likely
