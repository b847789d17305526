"""Send malformed frames to an engine's socket, and check that the engine still answers and its memory does not grow.

Usage: `python -m benchmarks.hostile_frames [FRAMES] [--seed N] [--model FILE]`. After every hundred frames, another
client sends a valid request, and the benchmark fails if the engine does not answer it. After each tenth of the frames,
the benchmark prints the resident memory of the engine's process. An engine disconnects a client that sends a malformed
frame, so the benchmark opens a connection for each frame.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from benchmarks.tiny_llama import write_tiny_llama
from indexer.model import Cursor
from policy.engine import protocol
from policy.engine.client import Engine
from policy.engine.endpoint import Endpoint, Streams, runtime_dir
from policy.engine.messages import GenerationRequest
from policy.engine.settings import EngineSettings

EVERY = 100  # the number of frames between two valid requests
OPERATIONS = ("load", "read", "warm", "generate", "try_all", "forget", "measure", "embed", "cancel", "rank", "", "exit")
MEMBERS = (
    "slot",
    "prefix",
    "cursor",
    "chunks",
    "max_tokens",
    "candidates",
    "trials",
    "texts",
    "background",
    "settings",
)
SANE = Cursor("/w/sane.py", "def area(w, h):\n    return ", "\n", "python")


class MalformedFrames:
    """Generates frames without end, none of which is a valid request. The frames are the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def next(self) -> bytes:
        """Return the bytes that the next connection sends."""
        pick = self._random
        kinds = [self._noise, self._length, self._body, self._request, self._request]
        return pick.choice(kinds)()

    def greets(self) -> bool:
        """Return whether the next connection sends the endpoint's token first. About three of four do."""
        return self._random.random() < 0.75

    def _noise(self) -> bytes:
        return self._random.randbytes(self._random.choice([1, 3, 4, 5, 200, 5_000]))

    def _length(self) -> bytes:
        """Return a frame whose header has a wrong length of the body."""
        body = b'{"id":1,"op":"forget","prefix":""}'
        wrong = self._random.choice([0, 1, len(body) - 1, len(body) + 9, 2**26, 2**26 + 1, 2**31, 2**32 - 1])
        return struct.pack(">I", wrong) + body

    def _body(self) -> bytes:
        depth = self._random.choice([10, 900, 100_000])
        body = self._random.choice(
            [
                b"", b"null", b"5", b'"x"', b"[]", b"{", b"NaN", b"{}", b"\xff\xfe", b"9" * 9_999, b"[" * depth,
                b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth,
                b'{"token":5}', b'{"token":"\\ud800"}',
            ]
        )  # fmt: skip
        return struct.pack(">I", len(body)) + body

    def _request(self) -> bytes:
        """Return a request that lacks members, or has members of wrong types."""
        pick = self._random
        message: dict[str, Any] = {name: self._value(3) for name in pick.sample(MEMBERS, pick.randrange(6))}
        message["id"] = pick.choice([0, 1, -1, 2**70, 1.5, "x", None, [], True])
        message["op"] = pick.choice([*OPERATIONS, 5, None, {}])
        message.pop(pick.choice(["id", "op", "slot", "cursor"]), None)
        body = json.dumps(message).encode()
        return struct.pack(">I", len(body)) + body

    def _value(self, depth: int) -> Any:
        pick = self._random
        match pick.randrange(7 if depth else 5):
            case 0:
                return None
            case 1:
                return pick.choice([0, -1, 2**31, 2**63, 10**400, 1.5, float("nan"), float("inf")])
            case 2:
                return pick.choice(["", "x", "\ud800", "a" * 20_000, "😀"])
            case 3:
                return pick.random() < 0.5
            case 4:
                return []
            case 5:
                return [self._value(depth - 1) for _ in range(pick.randrange(4))]
            case _:
                names = pick.sample(
                    ["path", "prefix", "suffix", "language", "text", "cursor", "root"], pick.randrange(5)
                )
                return {name: self._value(depth - 1) for name in names}


async def assault(engine: Engine, name: str, count: int, seed: int, *, patience: float = 60.0) -> list[int]:
    """Send `count` frames to the endpoint `name`. Return the engine's memory in bytes after each valid request.

    `engine` sends the valid requests. Raises `TimeoutError` if the engine does not answer a valid request within
    `patience` seconds.
    """
    process, frames, memory = psutil.Process(engine.pid), MalformedFrames(seed), []
    endpoint = Endpoint(runtime_dir(), name)
    for number in range(1, count + 1):
        (reader, writer), token = await endpoint.connect()
        if frames.greets():
            writer.write(protocol.pack({"token": token}))
        writer.write(frames.next())
        await _hang_up((reader, writer))
        if number % EVERY == 0 or number == count:
            await asyncio.wait_for(_complete(engine), patience)
            memory.append(process.memory_info().rss)
    return memory


async def _complete(engine: Engine) -> str:
    return "".join([piece async for piece in engine.generate(GenerationRequest("sane", SANE, None, 2))])


async def _hang_up(streams: Streams) -> None:
    """Disconnect when the engine begins to answer, or after 10 ms without an answer."""
    reader, writer = streams
    with contextlib.suppress(OSError, asyncio.TimeoutError):
        await writer.drain()
        await asyncio.wait_for(reader.read(1 << 16), 0.01)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _main(count: int, seed: int, model: Path | None) -> int:
    with tempfile.TemporaryDirectory(prefix="repoformer-") as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        name = "0" * 16
        engine = await Engine.connect(name, dict(os.environ), lambda line: print(line, file=sys.stderr))
        await engine.load(
            model or write_tiny_llama(Path(folder) / "tiny.gguf"), EngineSettings(context_size=1024, threads=2)
        )
        memory = await assault(engine, name, count, seed)
        tenth = max(1, len(memory) // 10)
        print("frames  memory (MB)")
        for at in range(tenth - 1, len(memory), tenth):
            print(f"{min((at + 1) * EVERY, count):6,}  {memory[at] / 1e6:11.1f}")
        await engine.close()
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", nargs="?", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="a model file (default: a tiny one with random weights)")
    options = parser.parse_args()
    sys.exit(asyncio.run(_main(options.frames, options.seed, options.model)))
