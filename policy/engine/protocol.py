"""The protocol between servers and the worker: JSON objects, each preceded by its length (four bytes, big-endian).

A server first sends `{"token"}`, and the worker answers `{"event": "welcome", "pid"}`. Then the server sends requests
`{"id", "op", …}`. The worker answers each with any number of `{"id", "event": "prompt" | "text" | "tried"}` and then
one `{"id", "event": "done" | "cancelled" | "error"}`. The server may send `{"op": "cancel", "id"}` at any time. A
request with `"background": true` is interrupted by every other request of any server, and is then answered with
`cancelled`. The answers to a request with `"trace": true` have the `"spans"` of the work (`policy.tracing.Recorded`)
since the answer before. `{"op": "rank", "id", "background"}` changes `background` of a request that is waiting or
running. The objects in messages have the fields of the classes in `indexer.model` and `messages`.
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

MAX_FRAME_BYTES = 1 << 26  # also the size of a reader's buffer; while the buffer is full, the sender has to wait
LENGTH = struct.Struct(">I")
Message = dict[str, Any]


def pack(message: Message) -> bytes:
    """Return a message as a frame: its length and its JSON text."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return LENGTH.pack(len(body)) + body


async def receive(reader: asyncio.StreamReader, longest: int = MAX_FRAME_BYTES) -> Message:
    """Read the next message.

    Raises `IncompleteReadError` at the end of the stream, and `ValueError` for a frame that has more than `longest`
    bytes or is not a JSON object.
    """
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
    """Return `message`, with `background` set, if it has the fields of a request. Raises `ValueError` otherwise."""
    number, background = message.get("id"), message.get("background", False)
    if not isinstance(message.get("op"), str) or not isinstance(background, bool):
        raise ValueError("not a request")
    if not isinstance(number, int) or isinstance(number, bool):
        raise ValueError("a request without a numeric id")
    return {**message, "background": background}


def checked_event(message: Message) -> Message:
    """Return `message` if it has the fields of an event. Raises `ValueError` otherwise."""
    if not isinstance(message.get("event"), str) or not isinstance(message.get("id"), int):
        raise ValueError("not an event")
    return message


def cursor_to_json(cursor: Cursor) -> Message:
    """Return `cursor` as JSON values."""
    return asdict(cursor)


def cursor_from_json(values: Message) -> Cursor:
    """Return the cursor with these JSON values."""
    return Cursor(**values)


def chunk_to_json(chunk: Chunk) -> Message:
    """Return `chunk` as JSON values."""
    return asdict(chunk)


def chunk_from_json(values: Message) -> Chunk:
    """Return the chunk with these JSON values."""
    return Chunk(**{**values, "symbols": tuple(values["symbols"])})


def vectors_to_json(vectors: NDArray[np.float32]) -> Message:
    """Return `vectors`, shape (rows, dimensions), as base64 text, which is much shorter than decimal numbers."""
    return {"rows": len(vectors), "data": base64.b64encode(vectors.astype("<f4").tobytes()).decode()}


def vectors_from_json(values: Message) -> NDArray[np.float32]:
    """Return the vectors that `vectors_to_json` packed, shape (rows, dimensions)."""
    vectors = np.frombuffer(base64.b64decode(values["data"]), "<f4").astype(np.float32)
    return vectors.reshape(values["rows"], -1) if values["rows"] else vectors.reshape(0, 0)
