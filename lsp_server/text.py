"""The one module that knows line ends and position encodings.

LSP counts lines by `\\n`, `\\r\\n` and `\\r` and nothing else, and characters in UTF-8, UTF-16 or UTF-32 code units,
whichever the client chose. `str.splitlines` also breaks at `\\f`, U+2028 and others, after which an incremental edit
hits the wrong line; hence an own text model.

A document is a tuple of lines, each with its line end. An edit rebuilds the lines it touches and copies the pointers
to the others, so a keystroke in a file of 25,000 lines costs microseconds, and every version is a value: a request
keeps the one it started with while the user types on. The price is that `text` is joined when it is asked for.

No operation takes more time than is linear in the line it touches (`benchmarks/sizes.py` prints a table).

Outside this module lines end with `\\n`: `Document.split_at` and `Document.text` say so in their results.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Encoding = Literal["utf-8", "utf-16", "utf-32"]
Position = tuple[int, int]
"""Zero-based line, and character in code units of an encoding: a position as LSP has it."""

# Only for text that ends with a line end: behind the last one this would search on from every character.
_ENDED_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Change:
    """One content change: `text` replaces the range from `start` to `end`, or everything where they are `None`."""

    text: str
    start: Position | None = None
    end: Position | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a document: zero-based line, and column as an index into that line's `str`.

    `note` says why the place is not where the client pointed to, and is empty when it is.
    """

    line: int
    column: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """One version of a text. `lines` holds at least one line; only the last has no line end."""

    uri: str
    version: int
    language_id: str
    lines: tuple[str, ...]

    @classmethod
    def of(cls, uri: str, text: str, *, version: int = 0, language_id: str = "") -> Document:
        """Make a document from its whole text."""
        return cls(uri, version, language_id, tuple(_split(_well_formed(text))))

    @property
    def text(self) -> str:
        """The whole text, lines ended by `\\n`."""
        return _normal("".join(self.lines))

    def locate(self, position: Position, encoding: Encoding) -> Place:
        """Where `position` is; one outside the document becomes the nearest place inside, with a note.

        A position inside a character (half of a surrogate pair) becomes the place before it. A character past the
        end of its line means the end of the line, which LSP allows, so that gets no note.
        """
        return _locate(self.lines, position, encoding)

    def position(self, place: Place, encoding: Encoding) -> Position:
        """The LSP position of a place."""
        return place.line, units(self.lines[place.line][: place.column], encoding)

    def split_at(self, place: Place) -> tuple[str, str]:
        """The text left and right of a place, lines ended by `\\n`."""
        here = self.lines[place.line]
        left = "".join(self.lines[: place.line]) + here[: place.column]
        right = here[place.column :] + "".join(self.lines[place.line + 1 :])
        return _normal(left), _normal(right)

    def around(self, place: Place) -> tuple[str, str]:
        """What stands left and right of a place on its own line, without the line end."""
        body = _body(self.lines[place.line])
        return body[: place.column], body[place.column :]

    def apply(self, changes: Iterable[Change], version: int, encoding: Encoding) -> Document:
        """The document after `changes`, each of which sees the result of those before it."""
        lines = list(self.lines)
        for change in changes:
            _change(lines, change, encoding)
        return replace(self, version=version, lines=tuple(lines))


def units(text: str, encoding: Encoding) -> int:
    """Length of `text` in code units of an encoding."""
    if encoding == "utf-32" or text.isascii():
        return len(text)
    codec, size = _CODECS[encoding]
    return len(text.encode(codec)) // size


def _change(lines: list[str], change: Change, encoding: Encoding) -> None:
    """Apply one change in place: a client sends thousands of them together when it replaces a word everywhere."""
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
        # The edit completes a `\r\n` that begins on the line above.
        first -= 1
        middle = lines[first] + middle
    # `middle` ends where the last line it took from ended, so its last piece is whole: empty unless at the end.
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
    # JSON can carry half a surrogate pair, which no encoder takes. The replacement character has the same length in
    # all three encodings, so positions stay right.
    try:
        text.encode()  # ten times as fast as a search
    except UnicodeEncodeError:
        return _LONE_SURROGATE.sub("\ufffd", text)
    return text


def _column(body: str, character: int, encoding: Encoding) -> int:
    # A character has one code unit or more, so what lies behind `character` characters is out of reach.
    head = body[:character]
    if encoding == "utf-32" or head.isascii():
        return len(head)
    codec, size = _CODECS[encoding]
    # Cut inside a character, the decoder leaves it out.
    return len(head.encode(codec)[: character * size].decode(codec, "ignore"))


# The codec of an encoding without a byte order mark, and the bytes of one code unit.
_CODECS: dict[Encoding, tuple[str, int]] = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2)}
