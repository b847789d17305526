"""Split a stream of bytes, which may be invalid, into the bodies of messages.

pygls reads headers line by line: it closes the connection at a line of 64 KiB, accepts only one spelling of
`Content-Length`, and loses the messages after a body that is shorter than its header says. In this module, a body also
ends where the next header begins. A body cannot contain a header, because a header contains a line break, which JSON
escapes in strings.
"""

from __future__ import annotations

import re
from typing import Protocol

LONGEST_BODY = 1 << 30  # bytes; a header that announces more is ignored
_READ_SIZE = 1 << 16
_LONGEST_HEADER = 256  # the number of bytes that are kept because they may be the beginning of a header line
# A header line, which may follow other bytes on the same line. The repetitions are bounded, so that a search takes
# linear time.
_LENGTH = re.compile(rb"content-length[ \t]{0,8}:[ \t]{0,8}(\d{1,12})[ \t]{0,8}\r?\n", re.IGNORECASE)
_UNFINISHED = re.compile(rb"Content-Length[ \t]{0,8}(?::[ \t]{0,8}\d{0,12}[ \t]{0,8}\r?)?")
# Bodies are searched only for this spelling, which all known clients use, because a case-insensitive search of 10 MB
# takes 0.2 s.
_NAME = b"Content-Length"
_OTHER = re.compile(rb"[A-Za-z-]{1,64}:[^\r\n]{0,256}\r?\n")  # such as Content-Type


class Reader(Protocol):
    """A source of bytes, such as an `asyncio.StreamReader`."""

    async def read(self, n: int, /) -> bytes:
        """Wait for bytes, and return up to `n` of them. Return no bytes at the end of the stream."""
        ...


class Frames:
    """The bodies of the messages in a stream."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._buffer = bytearray()

    async def next(self) -> bytes | None:
        """Return the next body, or None at the end of the stream.

        If the next header or the end of the stream comes too early, the body is incomplete.
        """
        length = await self._header()
        return None if length is None else await self._body(length)

    async def _header(self) -> int | None:
        """Remove the next header from the buffer, and return its `Content-Length`, or None at the end of the stream."""
        while True:
            if found := _LENGTH.search(self._buffer):
                if (length := int(found[1])) > LONGEST_BODY:
                    del self._buffer[: found.end()]
                    continue
                if (end := await self._end_of_header(found.end())) is None:
                    return None
                del self._buffer[:end]
                return length
            # Keep the last bytes, which may be the beginning of a header line.
            del self._buffer[:-_LONGEST_HEADER]
            if not await self._fill():
                return None

    async def _end_of_header(self, at: int) -> int | None:
        """Return the offset where the header ends, or None if the stream ends first.

        `at` is the offset after the line `Content-Length`. A header ends with an empty line.
        """
        while True:
            rest = bytes(self._buffer[at : at + 2 * _LONGEST_HEADER])
            if rest.startswith((b"\n", b"\r\n")):
                return at + rest.index(b"\n") + 1
            if _LENGTH.match(rest):
                return at  # the next header begins, so this message is empty
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
            # Search a bit further than `length`, to find a header that begins in this body and ends after it.
            while (at := self._buffer.find(_NAME, searched, length + len(_NAME) - 1)) >= 0:
                if _LENGTH.match(self._buffer, at):
                    return self._take(at)
                searched = at + 1
            complete = there >= length and not self._ends_in_header()
            if complete or not await self._fill():
                return self._take(length)
            searched = max(0, there - _LONGEST_HEADER)

    def _ends_in_header(self) -> bool:
        """Return whether the buffer ends with the beginning of a header line.

        This is never true at the end of a complete body, because a JSON object or array ends with a bracket.
        """
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
