"""Documents: the only module that handles line ends and position encodings.

LSP lines end with `\\n`, `\\r\\n` or `\\r` only. LSP characters are UTF-8, UTF-16 or UTF-32 code units; the client and
the server agree on one. `str.splitlines` also splits at `\\f`, U+2028 and others, so incremental edits would change the
wrong line. That is why this module has its own text model.

A document is a tuple of lines, each with its line end. An edit builds new strings for the lines that it changes, and
copies the pointers to the others, so a keystroke in a file of 25,000 lines costs microseconds. Every version is a
value: a request keeps the version that it started with. The cost is that `text` joins the lines at each access.

Every operation takes time linear in the lines that it changes (`benchmarks/sizes.py` prints a table).

Outside this module, lines end with `\\n`: `Document.split_at` and `Document.text` return such texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Encoding = Literal["utf-8", "utf-16", "utf-32"]
Position = tuple[int, int]
"""A position of LSP: zero-based line, and zero-based character in code units of an encoding."""

# Only for text that ends with a line end. On a long last line without one, the search would retry at each character.
_ENDED_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Change:
    """A content change: `text` replaces the range from `start` to `end`, or the whole text if they are None."""

    text: str
    start: Position | None = None
    end: Position | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a document: zero-based line, and column as an index into that line's `str`.

    `note` says why the place differs from the client's position. It is empty if they agree.
    """

    line: int
    column: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """One version of a document. `lines` has at least one line. Only the last line has no line end."""

    uri: str
    version: int
    language_id: str
    lines: tuple[str, ...]

    @classmethod
    def of(cls, uri: str, text: str, *, version: int = 0, language_id: str = "") -> Document:
        """Return a document with the text `text`."""
        return cls(uri, version, language_id, tuple(_split(_well_formed(text))))

    @property
    def text(self) -> str:
        """The whole text. Its lines end with `\\n`."""
        return _normal("".join(self.lines))

    def locate(self, position: Position, encoding: Encoding) -> Place:
        """Return the place of `position`. Outside the document, return the nearest place inside, with a note.

        A position inside a character (half of a surrogate pair) becomes the place before it. A position after the end
        of its line becomes the end of the line. LSP allows that, so it gets no note.
        """
        return _locate(self.lines, position, encoding)

    def position(self, place: Place, encoding: Encoding) -> Position:
        """Return the LSP position of a place."""
        return place.line, units(self.lines[place.line][: place.column], encoding)

    def split_at(self, place: Place) -> tuple[str, str]:
        """Return the text left and right of a place. Its lines end with `\\n`."""
        here = self.lines[place.line]
        left = "".join(self.lines[: place.line]) + here[: place.column]
        right = here[place.column :] + "".join(self.lines[place.line + 1 :])
        return _normal(left), _normal(right)

    def around(self, place: Place) -> tuple[str, str]:
        """Return the text left and right of a place on its line, without the line end."""
        body = _body(self.lines[place.line])
        return body[: place.column], body[place.column :]

    def apply(self, changes: Iterable[Change], version: int, encoding: Encoding) -> Document:
        """Return the document after `changes`. Each change applies to the result of the one before it."""
        lines = list(self.lines)
        for change in changes:
            _change(lines, change, encoding)
        return replace(self, version=version, lines=tuple(lines))


def units(text: str, encoding: Encoding) -> int:
    """Return the length of `text` in code units of an encoding."""
    if encoding == "utf-32" or text.isascii():
        return len(text)
    codec, size = _CODECS[encoding]
    return len(text.encode(codec)) // size


def _change(lines: list[str], change: Change, encoding: Encoding) -> None:
    """Apply one change in place, because a client may send thousands together (replace all)."""
    text = _well_formed(change.text)
    if change.start is None or change.end is None:
        lines[:] = _split(text)
        return
    start = _locate(lines, change.start, encoding)
    end = _locate(lines, change.end, encoding)
    if (end.line, end.column) < (start.line, start.column):
        start, end = end, start
    first = start.line
    middle = lines[first][: start.column] + text + lines[end.line][end.column :]
    if first and middle.startswith("\n") and lines[first - 1].endswith("\r"):
        # The edit completes a `\r\n` that begins on the previous line.
        first -= 1
        middle = lines[first] + middle
    # `middle` ends with the end of a line, so its last piece is empty, except at the end of the document.
    pieces = _split(middle)
    if end.line + 1 < len(lines):
        pieces.pop()
    lines[first : end.line + 1] = pieces


def _split(text: str) -> list[str]:
    tail = max(text.rfind("\n"), text.rfind("\r")) + 1
    return [*_ENDED_LINE.findall(text, 0, tail), text[tail:]]


def _locate(lines: Sequence[str], position: Position, encoding: Encoding) -> Place:
    line, character = position
    if line < 0 or character < 0:
        return Place(0, 0, f"position {line}:{character} is negative")
    if line >= len(lines):
        last = len(lines) - 1
        note = f"line {line} is past the end of the document, which has {len(lines)} lines"
        return Place(last, len(_body(lines[last])), note)
    return Place(line, _column(_body(lines[line]), character, encoding))


def _body(line: str) -> str:
    return line.rstrip("\r\n")


def _normal(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _well_formed(text: str) -> str:
    # JSON can contain half a surrogate pair, which cannot be encoded. The replacement character has the same length
    # in all three encodings, so positions stay correct.
    try:
        text.encode()  # ten times as fast as a search
    except UnicodeEncodeError:
        return _LONE_SURROGATE.sub("\ufffd", text)
    return text


def _column(body: str, character: int, encoding: Encoding) -> int:
    # Every character has at least one code unit, so the column is at most `character`.
    head = body[:character]
    if encoding == "utf-32" or head.isascii():
        return len(head)
    codec, size = _CODECS[encoding]
    # The decoder omits a character that is cut.
    return len(head.encode(codec)[: character * size].decode(codec, "ignore"))


# The codec of an encoding without a byte order mark, and the bytes of one code unit.
_CODECS: dict[Encoding, tuple[str, int]] = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2)}
