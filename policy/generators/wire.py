"""The HTTP connection to a server: a POST with a streamed answer, and an error message for each kind of failure.

No message quotes the server's answer, because an answer may repeat the prompt, and logs must not contain source code.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx
import truststore

from policy.errors import ServerUnavailable
from policy.generators.retry import READ_SECONDS

KEY = "REPOFORMER_API_KEY"  # the environment variable with the API key
CONNECT_SECONDS = 2.0
MAX_LINE_BYTES = 1 << 20
MAX_ERROR_BYTES = 1 << 16
# Parts of a request that not every server supports, and what to do without them.
OPTIONAL = {
    "suffix": "Set `serverPrompt` to the format of its model, such as `qwen`.",
    "logprobs": "Turn off the setting `serverDecides`.",
}

# Parameters that are not in OpenAI's API. Without the first one, vLLM penalizes repetition if the model's
# `generation_config.json` says so, but code repeats names. Without the second one, it hides special tokens, so a
# completion contains what the model generates after such a token.
EXTENSIONS: Mapping[str, object] = {"repetition_penalty": 1, "skip_special_tokens": False}

Event = Mapping[str, Any]


class Wire:
    """A connection to the server at `url`. `key` is sent as a bearer token, unless it is empty.

    `patience` is the time limit in seconds for each event, including the first.
    """

    def __init__(self, url: str, key: str, *, patience: float = READ_SECONDS) -> None:
        self.url = url.rstrip("/")
        scheme, host, self.host = _parts(self.url)
        self._refusal = ""
        if scheme not in {"http", "https"} or not host:
            self._refusal = f"The setting `serverUrl` is not an http(s) address: {self.url!r}."
        elif key and scheme == "http" and not _is_local(host):
            self._refusal = f"The API key is not sent to {self.host} without encryption. Use https in `serverUrl`."
        elif not (key.isascii() and key.isprintable()):
            self._refusal = f"The API key for {self.host} contains invalid characters. Set {KEY} to a valid key."
        self._patience = patience
        self._extended = True  # whether requests have the parameters `EXTENSIONS`
        make_client = partial(
            httpx.AsyncClient,
            headers={} if not key or self._refusal else {"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(patience, connect=CONNECT_SECONDS),
            # Trust the certificates that the system trusts, including a company's own.
            verify=truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        )
        try:
            self._client = make_client(trust_env=not _is_local(host))  # a server on this machine needs no proxy
        except (ValueError, httpx.InvalidURL) as error:
            self._refusal = self._refusal or f"A proxy in the environment cannot be used: {error}"
            self._client = make_client(trust_env=False)

    async def stream(self, path: str, body: Mapping[str, object]) -> AsyncGenerator[Event]:
        """POST `body` and `EXTENSIONS` to `path`, relative to the URL, and yield the events of the answer.

        If the server refuses one of `EXTENSIONS`, this and later requests are sent without them. A caller that closes
        the iterator (`contextlib.aclosing`) ends the request. `ServerUnavailable` can be raised before the first event
        and after each event, for example if the answer is incomplete.
        """
        if self._refusal:
            raise ServerUnavailable(self._refusal)
        try:
            async with contextlib.AsyncExitStack() as stack:
                response = await self._accepted(path, body, stack)
                events = await stack.enter_async_context(contextlib.aclosing(_events(response, self._patience)))
                async for event in events:
                    if problem := event.get("error"):  # for example from vLLM, if its engine ends
                        code = problem.get("code") if isinstance(problem, Mapping) else None
                        raise self._failure(code if isinstance(code, int) else 500, _complaint(event), body)
                    yield event
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise ServerUnavailable(self._message_of(error)) from error

    async def _accepted(
        self, path: str, body: Mapping[str, object], stack: contextlib.AsyncExitStack
    ) -> httpx.Response:
        """Send `body` and `EXTENSIONS`, and return the answer, which `stack` closes.

        Raises `ServerUnavailable` if the server refuses the request.
        """
        extended = {**EXTENSIONS, **body} if self._extended else body
        response = await stack.enter_async_context(contextlib.aclosing(await self._send(path, extended)))
        error = await _error(response)
        if extended is not body and any(name.encode() in error for name in EXTENSIONS):
            response = await stack.enter_async_context(contextlib.aclosing(await self._send(path, body)))
            error = await _error(response)
            self._extended = response.status_code != 200  # the first refusal can have another reason
        self._check(response, error, body)
        return response

    async def _send(self, path: str, body: Mapping[str, object]) -> httpx.Response:
        request = self._client.build_request("POST", f"{self.url}/{path}", json=body)
        try:
            return await self._client.send(request, stream=True)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            # The server may have closed a connection that was kept open for reuse, so try once more immediately.
            return await self._client.send(request, stream=True)

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    def _check(self, response: httpx.Response, error: bytes, body: Mapping[str, object]) -> None:
        """Raise `ServerUnavailable` unless the server accepts `body`. `error` is the content of a refusal."""
        if response.status_code == 200:
            if "suffix" in body and response.headers.get("server") == "llama.cpp":
                # Some versions of llama-server ignore the suffix, so the model would not see the text after the cursor.
                raise self._unsupported("suffix")
            return
        wait = response.headers.get("retry-after", "")
        try:
            complaint = _complaint(json.loads(error))
        except ValueError:
            complaint = ""
        raise self._failure(response.status_code, complaint, body, float(wait) if wait.isdigit() else None)

    def _failure(
        self, status: int, complaint: str, body: Mapping[str, object], after: float | None = None
    ) -> ServerUnavailable:
        """Return the error for a server that refuses `body` with `status`, or fails with it."""
        where = self.host
        for name in OPTIONAL.keys() & body.keys():
            if name in complaint:
                return self._unsupported(name)
        if status < 500 and "context" in complaint:
            return ServerUnavailable(
                f"The prompt is longer than the context of {where}. Start this server with more context for each "
                "request, or reduce `leftTokens`, `rightTokens` and `contextTokens`."
            )
        if status in {401, 403}:
            return ServerUnavailable(f"{where} rejects the API key ({status}). Set {KEY} to a valid key.", 60)
        if status == 404:
            return ServerUnavailable(
                f"{where} has no such address or model (404). `serverUrl` usually ends in /v1, and "
                "`generatorModel` must be the server's own name for the model.",
                60,
            )
        if status == 429:
            return ServerUnavailable(f"{where} receives too many requests (429).", after)
        if status == 503:  # for example llama-server, while it loads the model
            return ServerUnavailable(f"{where} is not ready (503).", after)
        if status >= 500:
            return ServerUnavailable(f"{where} failed ({status}).", after)
        return ServerUnavailable(
            f"{where} rejects the request ({status}). It may not have the model (`generatorModel`), or may need "
            "another `serverPrompt`.",
            60,
        )

    def _unsupported(self, name: str) -> ServerUnavailable:
        return ServerUnavailable(f"{self.host} does not support `{name}`. {OPTIONAL[name]}", 60)

    def _message_of(self, error: Exception) -> str:
        where = self.host
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return (
                    f"The certificate of {where} cannot be verified ({cause.verify_message or cause.reason}). Add its "
                    "issuer to the certificates that your system trusts, or set SSL_CERT_FILE."
                )
            cause = cause.__cause__ or cause.__context__
        match error:
            case httpx.TimeoutException():
                return f"{where} did not answer in time."
            case httpx.ConnectError():
                return f"{where} cannot be reached. Check that it is running and that `serverUrl` is right."
            case httpx.RemoteProtocolError() | httpx.ReadError() | httpx.WriteError():
                return f"{where} closed the connection before its answer was complete."
            case httpx.InvalidURL():
                return f"The setting `serverUrl` is not an http(s) address: {self.url!r}."
            case _:
                return f"The answer of {where} is not a completion."


async def _error(response: httpx.Response) -> bytes:
    """Return the content of a refusal, or nothing if `response` is no refusal or is too long."""
    whole = b""
    if response.status_code != 200:
        async for part in response.aiter_bytes():
            whole += part
            if len(whole) > MAX_ERROR_BYTES:
                return b""
    return whole


def _complaint(error: object) -> str:
    """Return the kind and the text of an error in lower case, or "" if it has another format.

    The text is only compared with known words, because a server may repeat the prompt in it.
    """
    # OpenAI, llama.cpp and vLLM answer {"error": {"message", "type", "code"}}.
    match error:
        case {"error": {"message": str(message), **more}}:
            return f"{more.get('type')} {more.get('code')} {message}".lower()
        case {"error": str(message)} | {"message": str(message)} | {"detail": str(message)}:
            return message.lower()
    return ""


def _parts(url: str) -> tuple[str, str, str]:
    """Return the scheme, the host, and the host with the port of `url`. All are empty if `url` is not a URL."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.netloc.rpartition("@")[2]
    except ValueError:
        return "", "", ""


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


async def _events(response: httpx.Response, patience: float) -> AsyncGenerator[Event]:
    """Yield the events of a streamed answer, or the one JSON object of an answer that is not streamed.

    Raises `ValueError` for any other answer, and `httpx.HTTPError` if the answer is incomplete or if no event arrives
    for `patience` seconds.
    """
    kind = response.headers.get("content-type", "text/event-stream")
    if kind.startswith("application/json"):
        whole = b"".join([line async for line in _lines(response.aiter_bytes())])
        yield _event(whole)
        return
    if not kind.startswith("text/event-stream"):
        raise ValueError("probably an HTML page")
    heard = time.monotonic()
    async for line in _lines(response.aiter_bytes()):
        if line.startswith(b"data:"):
            heard = time.monotonic()
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            yield _event(data)
        elif time.monotonic() - heard > patience:  # the server only sends comments, which keep the connection open
            raise httpx.ReadTimeout("comments")
    raise httpx.RemoteProtocolError("no end")


def _event(data: bytes) -> Event:
    event = json.loads(data)
    if not isinstance(event, dict):
        raise ValueError("not an object")
    return event


async def _lines(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the lines of a stream, and an empty line for each part of the stream that completes no line.

    The empty lines let the caller check the time. Raises `ValueError` if a line is too long to be an event.
    """
    rest = b""
    async for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        for line in whole or [b""]:
            yield line
        if len(rest) > MAX_LINE_BYTES:
            raise ValueError("a line that is too long")
    yield rest
