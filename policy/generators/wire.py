"""HTTP as far as completions need it: one streamed POST, and every way in which it can go wrong, said in words.

Nothing that a server answers is quoted in a message: it may repeat the prompt, and a log holds no source code.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import truststore

from policy.errors import ServerUnavailable
from policy.generators.retry import READ_SECONDS

KEY = "REPOFORMER_API_KEY"  # the variable of the environment that holds it
CONNECT_SECONDS = 2.0
LONGEST_LINE = 1 << 20  # bytes

Event = Mapping[str, Any]


class Wire:
    """A connection to one server. `key` is sent as a bearer token, unless it is empty.

    `patience` is how many seconds an event is waited for, the first one too.
    """

    def __init__(self, url: str, key: str, *, patience: float = READ_SECONDS) -> None:
        self.url = url.rstrip("/")
        scheme, host, self.host = _parts(self.url)
        self._refusal = ""
        if scheme not in {"http", "https"} or not host:
            self._refusal = f"The setting `serverUrl` is no http(s) address: {self.url!r}."
        elif key and scheme == "http" and not _is_here(host):
            self._refusal = f"The key is not sent to {self.host} without encryption: use https in `serverUrl`."
        elif not (key.isascii() and key.isprintable()):
            self._refusal = f"The key of {self.host} holds characters that no key can have: set {KEY} to the right one."
        self._patience = patience
        self._client = httpx.AsyncClient(
            headers={} if not key or self._refusal else {"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(patience, connect=CONNECT_SECONDS),
            # The certificates that the system trusts, a company's own included. There is no setting to trust others.
            verify=truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            trust_env=not _is_here(host),  # no proxy between us and this machine
        )

    async def stream(self, path: str, body: Mapping[str, object]) -> AsyncGenerator[Event]:
        """POST `body` and return the answer's events; leaving the iteration closes the connection.

        Raises `ServerUnavailable`, at the beginning or in the middle. An answer that breaks off raises it too.
        """
        if self._refusal:
            raise ServerUnavailable(self._refusal)
        try:
            async with contextlib.aclosing(await self._send(path, body)) as response:
                self._check(response)
                async with contextlib.aclosing(_events(response, self._patience)) as events:
                    async for event in events:
                        yield event
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise ServerUnavailable(self._explained(error)) from error

    async def _send(self, path: str, body: Mapping[str, object]) -> httpx.Response:
        request = self._client.build_request("POST", f"{self.url}/{path}", json=body)
        try:
            return await self._client.send(request, stream=True)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            # The server may have closed the connection that was kept open for this: once more, at once.
            return await self._client.send(request, stream=True)

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    def _check(self, response: httpx.Response) -> None:
        status, where = response.status_code, self.host
        if status == 200:
            return
        wait = response.headers.get("retry-after", "")
        after = float(wait) if wait.isdigit() else None
        if status in {401, 403}:
            raise ServerUnavailable(f"{where} refuses the key ({status}): set {KEY} to one it accepts.", 60)
        if status == 404:
            raise ServerUnavailable(
                f"{where} knows no such address or model (404): `serverUrl` ends in /v1, as a rule, and "
                "`generatorModel` is the server's own name for its model.",
                60,
            )
        if status == 429:
            raise ServerUnavailable(f"{where} has too many requests (429).", after)
        if status >= 500:
            raise ServerUnavailable(f"{where} failed ({status}).", after)
        raise ServerUnavailable(
            f"{where} refuses the request ({status}): it may not know the model (`generatorModel`), or want another "
            "`serverPrompt`.",
            60,
        )

    def _explained(self, error: Exception) -> str:
        where = self.host
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return (
                    f"The certificate of {where} could not be verified ({cause.verify_message or cause.reason}): let "
                    "your system trust whoever issued it, or set SSL_CERT_FILE."
                )
            cause = cause.__cause__ or cause.__context__
        match error:
            case httpx.TimeoutException():
                return f"{where} did not answer in time."
            case httpx.ConnectError():
                return f"{where} cannot be reached: is it running, and is `serverUrl` right?"
            case httpx.RemoteProtocolError() | httpx.ReadError() | httpx.WriteError():
                return f"{where} broke off in the middle of an answer."
            case httpx.InvalidURL():
                return f"The setting `serverUrl` is no http(s) address: {self.url!r}."
            case _:
                return f"{where} answered with something that is no completion."


def _parts(url: str) -> tuple[str, str, str]:
    """Scheme, host, and host with port; all empty where that is no address."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.netloc.rpartition("@")[2]
    except ValueError:
        return "", "", ""


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


async def _events(response: httpx.Response, patience: float) -> AsyncGenerator[Event]:
    """What comes in a stream of events, until its end is said; or one object, from a server that does not stream.

    Raises `ValueError` for what is neither, and `httpx.HTTPError` where it breaks off or falls silent.
    """
    kind = response.headers.get("content-type", "text/event-stream")
    if kind.startswith("application/json"):
        whole = b"".join([line async for line in _lines(response.aiter_bytes())])
        yield _event(whole)
        return
    if not kind.startswith("text/event-stream"):
        raise ValueError("a page for people, as a rule")
    heard = time.monotonic()
    async for line in _lines(response.aiter_bytes()):
        if line.startswith(b"data:"):
            heard = time.monotonic()
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            yield _event(data)
        elif time.monotonic() - heard > patience:  # it sends comments, to seem alive
            raise httpx.ReadTimeout("comments")
    raise httpx.RemoteProtocolError("no end")


def _event(data: bytes) -> Event:
    event = json.loads(data)
    if not isinstance(event, dict):
        raise ValueError("not an object")
    return event


async def _lines(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Whole lines of a stream, and an empty one for each part that ends none.

    Raises `ValueError` where a line has no end: whatever that is, it is no event.
    """
    rest = b""
    async for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        for line in whole or [b""]:
            yield line
        if len(rest) > LONGEST_LINE:
            raise ValueError("a line without an end")
    yield rest
