"""How the server and its worker talk: JSON objects, each behind its length in four bytes, big-endian.

The server sends `{"id", "op", …}`; the worker answers with any number of `{"id", "event": "prompt" | "text"}` and
one last `{"id", "event": "done" | "cancelled" | "error"}`. `{"op": "cancel", "id"}` may come at any time. Values are
those of `indexer.model` and `policy.engine.client`, field by field.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict
from typing import Any, BinaryIO

from indexer.model import Chunk, Cursor

LENGTH = struct.Struct(">I")
Message = dict[str, Any]


def pack(message: Message) -> bytes:
    """A whole frame."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return LENGTH.pack(len(body)) + body


def read(stream: BinaryIO) -> Message | None:
    """The next message of a blocking stream, or None at its end."""
    header = stream.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    body = stream.read(LENGTH.unpack(header)[0])
    return unpack(body)


def unpack(body: bytes) -> Message:
    """A frame without its length."""
    message: Message = json.loads(body)
    return message


def cursor_to_json(cursor: Cursor) -> Message:
    """Plain values of `cursor`."""
    return asdict(cursor)


def cursor_from_json(values: Message) -> Cursor:
    """The inverse of `cursor_to_json`."""
    return Cursor(**values)


def chunk_to_json(chunk: Chunk) -> Message:
    """Plain values of `chunk`."""
    return asdict(chunk)


def chunk_from_json(values: Message) -> Chunk:
    """The inverse of `chunk_to_json`."""
    return Chunk(**{**values, "symbols": tuple(values["symbols"])})
