"""Split a stream of bytes, valid or not, into the bodies of messages.

pygls reads headers line by line: it closes the connection at a line of 64 KiB, accepts one spelling of
`Content-Length`, and loses the messages after a body that is shorter than announced. Here a body also ends where the
next header begins. That is safe, because a header contains a line break, which JSON escapes in strings.
"""

from __future__ import annotations

import re
from typing import Protocol

LONGEST_BODY = 1 << 30  # bytes; a header that announces more is ignored
_READ_SIZE = 1 << 16
_LONGEST_HEADER = 256  # bytes of an incomplete header line that are kept
# A header line, possibly after other bytes on the same line. Bounded, so that a search takes linear time.
_LENGTH = re.compile(rb"content-length[ \t]{0,8}:[ \t]{0,8}(\d{1,12})[ \t]{0,8}\r?\n", re.IGNORECASE)
_UNFINISHED = re.compile(rb"Content-Length[ \t]{0,8}(?::[ \t]{0,8}\d{0,12}[ \t]{0,8}\r?)?")
_NAME = b"Content-Length"  # the spelling of all known clients; a case-insensitive search of a body of 10 MB takes 0.2 s
_OTHER = re.compile(rb"[A-Za-z-]{1,64}:[^\r\n]{0,256}\r?\n")  # such as Content-Type


class Reader(Protocol):
    """A source of bytes, such as an `asyncio.StreamReader`."""

    async def read(self, n: int, /) -> bytes:
        """Return up to `n` bytes as soon as some have arrived, and none at the end of the stream."""
        ...


class Frames:
    """The bodies of the messages in a stream."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._buffer = bytearray()

    async def next(self) -> bytes | None:
        """Return the next body, or None at the end of the stream.

        The body may be incomplete, if the next header or the end of the stream comes early.
        """
        length = await self._header()
        return None if length is None else await self._body(length)

    async def _header(self) -> int | None:
        """Skip the next header, and return the length that it announces."""
        while True:
            if found := _LENGTH.search(self._buffer):
                if (length := int(found[1])) > LONGEST_BODY:
                    del self._buffer[: found.end()]
                    continue
                if (end := await self._end_of_header(found.end())) is None:
                    return None
                del self._buffer[:end]
                return length
            # The rest may be the beginning of a header line.
            del self._buffer[:-_LONGEST_HEADER]
            if not await self._fill():
                return None

    async def _end_of_header(self, at: int) -> int | None:
        """Return the offset after the empty line, or None if the stream ends before it."""
        while True:
            rest = bytes(self._buffer[at : at + 2 * _LONGEST_HEADER])
            if rest.startswith((b"\n", b"\r\n")):
                return at + rest.index(b"\n") + 1
            if _LENGTH.match(rest):
                return at  # the header of another message: this one is empty
            if other := _OTHER.match(rest):
                at += other.end()
            elif b"\n" in rest or len(rest) == 2 * _LONGEST_HEADER or rest[:1] in (b"{", b"["):
                return at  # the empty line is missing
            elif not await self._fill():
                return None

    async def _body(self, length: int) -> bytes:
        searched = 0
        while True:
            there = len(self._buffer)
            # Also find a header that begins in this body and ends after it.
            while (at := self._buffer.find(_NAME, searched, length + len(_NAME) - 1)) >= 0:
                if _LENGTH.match(self._buffer, at):
                    return self._take(at)
                searched = at + 1
            complete = there >= length and not self._ends_in_header()
            if complete or not await self._fill():
                return self._take(length)
            searched = max(0, there - _LONGEST_HEADER)

    def _ends_in_header(self) -> bool:
        """Return whether the buffer ends with the beginning of a header line. JSON ends with a bracket or a quote."""
        tail = bytes(self._buffer[-_LONGEST_HEADER:])
        at = tail.rfind(_NAME[:1])
        rest = tail[at:] if at >= 0 else b""
        return bool(rest) and (_NAME.startswith(rest) or _UNFINISHED.fullmatch(rest) is not None)

    def _take(self, length: int) -> bytes:
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return body

    async def _fill(self) -> bool:
        data = await self._reader.read(_READ_SIZE)
        self._buffer += data
        return bool(data)
