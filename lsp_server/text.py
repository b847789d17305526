"""The text of documents. This is the only module that handles line ends and position encodings.

In LSP, a line ends with `\\n`, `\\r\\n` or `\\r` only, and a character is a code unit of UTF-8, UTF-16 or UTF-32. The
client and the server agree on one of these encodings. `str.splitlines` also splits at `\\f`, U+2028 and others, so an
edit would change the wrong line. Therefore, this module splits lines itself.

A document is a tuple of lines, each with its line end. An edit builds new strings for the changed lines, and copies
only the pointers to the others, so a keystroke in a file of 25,000 lines takes microseconds. Apart from these copies,
the time of an edit is linear in the length of the changed lines (`benchmarks/sizes.py` measures it). A document is
immutable, so a request keeps the version that it started with. The cost is that `text` joins the lines at each access.

Outside of this module, lines end with `\\n`: `Document.split_at` and `Document.text` return such texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Encoding = Literal["utf-8", "utf-16", "utf-32"]
Position = tuple[int, int]
"""A position of LSP: the line, and the character in code units of the encoding. Both count from 0."""

# Use this only for text that ends with a line end. In a last line without a line end, the search would start again at
# each character, which takes quadratic time.
_ENDED_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Change:
    """An edit of a document: `text` replaces the text from `start` to `end`, or the whole text if both are None."""

    text: str
    start: Position | None = None
    end: Position | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a document: the line, and the column as an index into that line's `str`. Both count from 0.

    `note` says why the place differs from the position that the client sent. It is empty if they agree.
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
        """Return a document with this text. Halves of surrogate pairs become U+FFFD."""
        return cls(uri, version, language_id, tuple(_split(_well_formed(text))))

    @property
    def text(self) -> str:
        """The whole text, with `\\n` as line end."""
        return _with_newlines("".join(self.lines))

    def locate(self, position: Position, encoding: Encoding) -> Place:
        """Return the place of `position`. For a position outside the document, return the nearest place, with a note.

        A position inside a character, between its code units, becomes the place before the character. A position after
        the end of its line becomes the end of the line, without a note, because LSP allows such a position.
        """
        return _locate(self.lines, position, encoding)

    def position(self, place: Place, encoding: Encoding) -> Position:
        """Return the LSP position of a place."""
        return place.line, units(self.lines[place.line][: place.column], encoding)

    def split_at(self, place: Place) -> tuple[str, str]:
        """Return the text before and after `place`, with `\\n` as line end."""
        here = self.lines[place.line]
        left = "".join(self.lines[: place.line]) + here[: place.column]
        right = here[place.column :] + "".join(self.lines[place.line + 1 :])
        return _with_newlines(left), _with_newlines(right)

    def around(self, place: Place) -> tuple[str, str]:
        """Return the text before and after `place` on its line, without the line end."""
        body = _body(self.lines[place.line])
        return body[: place.column], body[place.column :]

    def apply(self, changes: Iterable[Change], version: int, encoding: Encoding) -> Document:
        """Return the document after `changes`. Each change applies to the result of the one before it."""
        lines = list(self.lines)
        for change in changes:
            _change(lines, change, encoding)
        return replace(self, version=version, lines=tuple(lines))


def units(text: str, encoding: Encoding) -> int:
    """Return the length of `text` in code units of `encoding`."""
    if encoding == "utf-32" or text.isascii():
        return len(text)
    codec, size = _CODECS[encoding]
    return len(text.encode(codec)) // size


def _change(lines: list[str], change: Change, encoding: Encoding) -> None:
    """Apply one change to `lines`, in place, because an editor may send thousands of changes together (replace all)."""
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
        # The edit completes a `\r\n` whose `\r` ends the previous line.
        first -= 1
        middle = lines[first] + middle
    # Unless the edit is on the document's last line, `middle` ends with a line end, so the last piece is empty.
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


def normal(text: str) -> str:
    """Return a text of the client with `\\n` as its line ends, and without halves of surrogate pairs."""
    return _with_newlines(_well_formed(text))


def _with_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _well_formed(text: str) -> str:
    # JSON can contain half a surrogate pair, which Python cannot encode. The replacement character has the same length
    # as such a half in all three encodings, so positions stay correct.
    try:
        text.encode()  # ten times as fast as a search for surrogates
    except UnicodeEncodeError:
        return _LONE_SURROGATE.sub("\ufffd", text)
    return text


def _column(body: str, character: int, encoding: Encoding) -> int:
    # Every character has at least one code unit, so the column is at most `character`, and the rest is not needed.
    head = body[:character]
    if encoding == "utf-32" or head.isascii():
        return len(head)
    codec, size = _CODECS[encoding]
    # The decoder ignores a character of which only some code units are left.
    return len(head.encode(codec)[: character * size].decode(codec, "ignore"))


# For each encoding, the codec that writes no byte order mark, and the number of bytes of one code unit.
_CODECS: dict[Encoding, tuple[str, int]] = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2)}
