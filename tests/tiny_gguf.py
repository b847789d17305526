"""Make the smallest files that pass the checks for a model: a GGUF header, and tensors of a few bytes."""

from __future__ import annotations

import struct
from typing import Any

LLAMA = {"general.architecture": "llama", "tokenizer.ggml.model": "gpt2", "llama.block_count": 2}
F32, Q4_0 = 0, 2


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def field(key: str, value: Any) -> bytes:
    match value:
        case bool():
            return text(key) + struct.pack("<I?", 7, value)
        case int():
            return text(key) + struct.pack("<II", 4, value)
        case float():
            return text(key) + struct.pack("<If", 6, value)
        case str():
            return text(key) + struct.pack("<I", 8) + text(value)
        case list() if value and isinstance(value[0], str):
            return text(key) + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
        case list():
            return text(key) + struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
    raise TypeError(value)


def gguf(
    metadata: dict[str, Any], *, tensors: int = 1, kind: int = F32, version: int = 3, magic: bytes = b"GGUF"
) -> bytes:
    """Return the bytes of a GGUF file with this metadata and with `tensors` tensors of 64 values each."""
    size = 256 if kind == F32 else 36
    head = magic + struct.pack("<IQQ", version, tensors, len(metadata))
    head += b"".join(field(key, value) for key, value in metadata.items())
    for number in range(tensors):
        head += text(f"blk.{number}") + struct.pack("<IQIQ", 1, 64, kind, number * 256)
    data = b"".join(b"\1" * size + b"\0" * ((256 - size) if number < tensors - 1 else 0) for number in range(tensors))
    return head + b"\0" * (-len(head) % 32) + data
