"""How servers and the worker talk: JSON objects, each behind its length in four bytes, big-endian.

A server begins with `{"token"}` and is answered `{"event": "welcome", "pid"}`. From then on it sends `{"id", "op", …}`,
and the worker answers with any number of `{"id", "event": "prompt" | "text" | "tried"}` and one last `{"id",
"event": "done" | "cancelled" | "error"}`. `{"op": "cancel", "id"}` may come at any time. A request with `"background":
true` gives way to all others, of any server, and is then answered `cancelled`; `{"op": "rank", "id", "background"}`
changes that of one that waits or runs. Values are those of `indexer.model` and `messages`, field by field.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.model import Chunk, Cursor

if TYPE_CHECKING:
    from numpy.typing import NDArray

LONGEST_FRAME = 1 << 26  # bytes; also what a reader buffers before it makes its peer wait
LENGTH = struct.Struct(">I")
Message = dict[str, Any]


def pack(message: Message) -> bytes:
    """A whole frame."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return LENGTH.pack(len(body)) + body


async def receive(reader: asyncio.StreamReader, longest: int = LONGEST_FRAME) -> Message:
    """The next message. Raises `IncompleteReadError` at the end, `ValueError` for what is no message, or too long."""
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    if length > longest:
        raise ValueError(f"a frame of {length} bytes")
    try:
        message = json.loads(await reader.readexactly(length))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(message, dict):
        raise ValueError("not an object")
    return message


def checked_request(message: Message) -> Message:
    """Return `message` if it has what every request has. Raises `ValueError`."""
    number, background = message.get("id"), message.get("background", False)
    if not isinstance(message.get("op"), str) or not isinstance(background, bool):
        raise ValueError("not a request")
    if not isinstance(number, int) or isinstance(number, bool):
        raise ValueError("a request without a number")
    return {**message, "background": background}


def checked_event(message: Message) -> Message:
    """Return `message` if it has what every event has. Raises `ValueError`."""
    if not isinstance(message.get("event"), str) or not isinstance(message.get("id"), int):
        raise ValueError("not an event")
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


def vectors_to_json(vectors: NDArray[np.float32]) -> Message:
    """Rows of numbers, packed: as JSON's decimal numbers they would be several times as long."""
    return {"rows": len(vectors), "data": base64.b64encode(vectors.astype("<f4").tobytes()).decode()}


def vectors_from_json(values: Message) -> NDArray[np.float32]:
    """The inverse of `vectors_to_json`."""
    vectors = np.frombuffer(base64.b64decode(values["data"]), "<f4").astype(np.float32)
    return vectors.reshape(values["rows"], -1) if values["rows"] else vectors.reshape(0, 0)
