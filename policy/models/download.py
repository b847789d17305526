"""Download a file over HTTP: resume where an earlier download stopped, and retry when a connection fails.

`assembly.py` checks the hash of the content. Before it writes anything, this module only checks that the answer is what
was requested: a proxy may answer with its own page, and a server may ignore the requested range.
"""

from __future__ import annotations

import os
import re
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import truststore

from policy.errors import ModelMissing
from policy.models.index_settings import IndexSettings
from policy.models.lock import Stopped
from policy.models.sources import Origin

CONNECT_SECONDS, READ_SECONDS = 10.0, 20.0
ATTEMPTS = 4
PAUSE_SECONDS = 1.0  # the pause before the second attempt; each further pause is twice as long


def client_for(settings: IndexSettings) -> httpx.Client:
    """Return an HTTP client that uses the certificates and proxies configured in the system and in pip.

    Raises `ModelMissing` if a proxy is not a valid address.
    """
    trusted = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for file in {settings.certificates, os.environ.get("REQUESTS_CA_BUNDLE", "")}:
        if file and Path(file).is_file():
            trusted.load_verify_locations(file)
    try:
        return httpx.Client(
            verify=trusted,
            proxy=settings.proxy or None,
            timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            headers={"User-Agent": "repoformer-lsp"},
        )
    except (ValueError, httpx.InvalidURL) as error:
        raise ModelMissing(f"A proxy in the environment or in pip's settings cannot be used: {error}") from error


def download(
    client: httpx.Client, origin: Origin, target: Path, stop: threading.Event, on_share: Callable[[float], None]
) -> None:
    """Download `origin` into `target`, after the bytes that `target` already has.

    `on_share` gets the complete share of the file, in [0, 1]. Raises `ModelMissing` if the server does not have the
    content or cannot be reached, `Stopped` if `stop` is set, and `OSError` if the file cannot be written.
    """
    for attempt in range(ATTEMPTS):
        try:
            _once(client, origin, target, stop, on_share)
            return
        except httpx.TransportError as error:
            if attempt == ATTEMPTS - 1 or isinstance(error, httpx.ConnectError | httpx.UnsupportedProtocol):
                raise unreachable(origin.host, error) from error
            if stop.wait(PAUSE_SECONDS * 2**attempt):
                raise Stopped from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise unreachable(origin.host, error) from error


def unreachable(host: str, error: Exception) -> ModelMissing:
    """Return the error that tells the user that httpx raised `error` for `host`."""
    detail = str(error) or type(error).__name__
    return ModelMissing(f"{host} cannot be reached, or the connection is interrupted ({detail})")


def _once(
    client: httpx.Client, origin: Origin, target: Path, stop: threading.Event, on_share: Callable[[float], None]
) -> None:
    begun = target.stat().st_size if target.is_file() else 0
    if origin.size is not None and begun >= origin.size:
        if begun == origin.size:
            on_share(1.0)
            return
        target.unlink()
        begun = 0
    start = origin.first + begun
    partial = origin.first > 0 or origin.size != origin.total
    headers = {"Accept-Encoding": "identity"}
    if partial and origin.size is not None:
        headers["Range"] = f"bytes={start}-{origin.first + origin.size - 1}"
    elif begun:
        headers["Range"] = f"bytes={start}-"
    with client.stream("GET", origin.url, headers=headers, follow_redirects=True) as response:
        if response.status_code == 416:  # the local file is not the beginning of the file on the server
            target.unlink(missing_ok=True)
            raise httpx.ReadError("the server has no such range")
        begun = _checked(response, origin, start, begun, partial=partial)
        expected = origin.size or begun + int(response.headers.get("content-length", 0))
        with target.open("r+b" if begun else "wb") as sink:
            sink.seek(begun)
            for block in response.iter_bytes():
                if stop.is_set():
                    raise Stopped
                sink.write(block)
                begun += len(block)
                on_share(min(begun / expected, 1.0) if expected else 0.0)
    if origin.size is not None and begun != origin.size:
        raise httpx.ReadError(f"{begun:,} of {origin.size:,} bytes arrived")
    on_share(1.0)


def _checked(response: httpx.Response, origin: Origin, start: int, begun: int, *, partial: bool) -> int:
    """Check that the answer is what was requested. Return the number of bytes of the local file to keep.

    The result is `begun`, or 0 if the answer is the whole file. Raises `ModelMissing` for a wrong answer, and
    `httpx.ReadError` if another attempt may succeed.
    """
    status, kind = response.status_code, response.headers.get("content-type", "").partition(";")[0]
    if status >= 500 or status == 429:
        raise httpx.ReadError(f"status {status}")
    if status not in {200, 206}:
        raise ModelMissing(f"{origin.host} answered with status {status}")
    if kind in {"text/html", "application/xhtml+xml"}:
        raise ModelMissing(
            f"{origin.host} answered with a page ({kind}) instead of the file; the answer may be that of a proxy or a "
            "sign-in page"
        )
    if status == 200:
        if partial:
            raise ModelMissing(f"{origin.host} does not support range requests")
        return 0  # the answer is the whole file
    sent = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("content-range", ""))
    if sent is None or int(sent[1]) != start:
        raise ModelMissing(f"{origin.host} returned a different range than requested")
    if origin.total is not None and sent[2] not in {"*", str(origin.total)}:
        raise ModelMissing(f"{origin.host} has another file of that name ({int(sent[2]):,} bytes)")
    return begun
