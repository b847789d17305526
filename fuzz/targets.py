"""The targets of fuzzing: functions that accept any bytes, and raise only if the tested code is wrong.

`text` compares the server's text model with plain string operations. `framing` reads messages from a stream. `ignore`
matches paths against the patterns of an ignore file. `chunking` checks that chunks partition the lines of a file.
`gguf` reads headers of model files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from indexer.chunking import chunk
from indexer.ignore import Patterns, split_lines
from indexer.languages import LANGUAGES
from lsp_server.framing import Frames
from lsp_server.text import Change, Document, Encoding, Place
from policy.errors import ModelInvalid
from policy.models.gguf import read_header

_ENCODINGS: tuple[Encoding, ...] = ("utf-8", "utf-16", "utf-32")
# Characters that `lsp_server.text` must treat differently from each other: line breaks of several kinds, combining
# marks, characters of one to four bytes, and surrogates.
_LETTERS = "ab{\t\n\n\r\r\f\v\x85\u2028é\u0301漢\ufeff😀𝒳\ud83d\udc00"
_CHUNKED = [LANGUAGES[name] for name in ("python", "javascript", "rust", "ruby", "c")]


class _Bytes:
    """Reads values from the front of some bytes. When no byte is left, every number is 0."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def number(self) -> int:
        """Return the next number from 0 to 255."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def text(self) -> str:
        """Return at most eleven of the characters in `_LETTERS`."""
        return "".join(_LETTERS[self.number() % len(_LETTERS)] for _ in range(self.number() % 12))


def text(data: bytes) -> None:
    """Edit a document. The same edits of a string must give the same text, and positions must convert both ways."""
    source = _Bytes(data)
    encoding = _ENCODINGS[source.number() % 3]
    document, expect = Document.of("", (begun := source.text())), _replaced(begun)
    while source:
        positions = [(source.number() % 8, source.number() % 16) for _ in range(2)]
        change = Change(source.text(), *positions)
        ends = sorted(_offset(document, document.locate(position, encoding)) for position in positions)
        expect = expect[: ends[0]] + _replaced(change.text) + expect[ends[1] :]
        document = document.apply([change], 1, encoding)
        assert "".join(document.lines) == expect
        assert document.lines == Document.of("", expect).lines
        for each in _ENCODINGS:
            place = document.locate(positions[0], each)
            again = document.locate(document.position(place, each), each)
            assert (again.line, again.column) == (place.line, place.column)
            left, right = document.split_at(place)
            assert left + right == document.text


def _offset(document: Document, place: Place) -> int:
    return sum(map(len, document.lines[: place.line])) + place.column


def _replaced(sent: str) -> str:
    return "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in sent)


class _Pieces:
    """A stream that returns pieces of a few bytes, and never waits."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data, self._size = data, size

    async def read(self, n: int, /) -> bytes:
        piece, self._data = self._data[: self._size], self._data[self._size :]
        return piece


def framing(data: bytes) -> None:
    """Read messages. A valid message that begins on a new line must be found, whatever precedes it."""
    message = b"Content-Length: 2\r\n\r\n{}"
    size = 1 + data[0] % 64 if data else 1
    found = _run(_bodies(Frames(_Pieces(data + b"\n" + message, size))))
    assert found[-1] == b"{}"


async def _bodies(frames: Frames) -> list[bytes]:
    bodies = []
    while (body := await frames.next()) is not None:
        bodies.append(body)
    return bodies


def _run(coroutine: Coroutine[Any, Any, list[bytes]]) -> list[bytes]:
    """Return the result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: list[bytes] = end.value
        return result
    raise AssertionError("the coroutine waits")


def ignore(data: bytes) -> None:
    """Match paths against an ignore file. `decide` must return what the pattern from `deciding` says."""
    head, _, rest = data.partition(b"\n\n")
    patterns = Patterns("fuzzed", split_lines(head))
    for name in ("a", "a/b.py", "a/", "a/b/", ".x", *rest.decode("utf-8", "surrogateescape").split("\n")[:4]):
        decision, pattern = patterns.decide(name), patterns.deciding(name)
        assert decision == (None if pattern is None else pattern.ignores)


def chunking(data: bytes) -> None:
    """Cut a text into chunks. Each of its lines must be in exactly one chunk, unless it is cut into windows."""
    language = _CHUNKED[data[0] % len(_CHUNKED)] if data else None
    source = data[1:].decode("utf-8", "replace")
    lines = source.replace("\r\n", "\n")
    count = lines.count("\n") + (not lines.endswith("\n")) if lines else 0
    chunks = chunk(source, language, root="/", path="a")
    if language is not None:
        assert [line for each in chunks for line in range(each.start_line, each.end_line + 1)] == [
            *range(1, count + 1)
        ] or any(each.kind == "window" for each in chunks)


_FILE = Path(tempfile.gettempdir()) / "repoformer-fuzzed.gguf"


def gguf(data: bytes) -> None:
    """Read a file's header. `read_header` must return, or raise `ModelInvalid`."""
    _FILE.write_bytes(data)
    try:
        read_header(_FILE)
    except ModelInvalid:
        return
    finally:
        _FILE.unlink()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "text": text,
    "framing": framing,
    "ignore": ignore,
    "chunking": chunking,
    "gguf": gguf,
}
