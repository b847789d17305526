"""Messages are found in a stream of bytes, even with invalid bytes between them, and in pieces of any size."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsp_server.framing import Frames

GOOD = b'{"jsonrpc":"2.0","id":1,"method":"repoformer/why"}'
LENGTH = b"%d" % len(GOOD)


def framed(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


async def bodies(stream: bytes, size: int = 7, *, end: bool = True) -> list[bytes]:
    """Return the messages in `stream`, which arrives in pieces of `size` bytes.

    With `end`, the stream ends after the last piece. Without it, the stream stays open, and the reader waits.
    """
    reader = asyncio.StreamReader()
    frames, found = Frames(reader), []

    async def collect() -> None:
        while (body := await frames.next()) is not None:
            found.append(body)

    task = asyncio.create_task(collect())
    for at in range(0, len(stream), size):
        reader.feed_data(stream[at : at + size])
        await asyncio.sleep(0)
    if end:
        reader.feed_eof()
        await task
    else:
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
    return found


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
@pytest.mark.parametrize(
    "noise",
    [
        b"",
        b"\r\n\r\n",
        b"hello\r\n",
        b"hello",
        b"\xff" * 300,
        b"Content-Length: -5\r\n\r\n",
        b"Content-Length: x\r\n\r\n{}",
        b"Content-Length: 99999999999999\r\n\r\n",
        b"Content-Length: 999999999999\r\n\r\n{}",
        b"Content-Type: text/plain\r\n\r\n",
        b'Content-Length: 5\r\n\r\n{"a": "longer than that"}',
    ],
)
async def test_a_message_behind_noise_is_found(noise: bytes, size: int) -> None:
    assert (await bodies(noise + framed(GOOD), size))[-1] == GOOD


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
async def test_a_body_that_breaks_off_takes_none_of_the_next_message(size: int) -> None:
    stream = b'Content-Length: 5000\r\n\r\n{"cut": ' + framed(GOOD)
    assert await bodies(stream, size, end=False) == [b'{"cut": ', GOOD], (
        "the reader waits for the rest of a body that is cut off"
    )


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: " + LENGTH + b"\r\n\r\n",
        b"content-length:" + LENGTH + b"\r\n\r\n",
        b"CONTENT-LENGTH:  " + LENGTH + b" \r\n\r\n",
        b"Content-Length: " + LENGTH + b"\n\n",
        b"Content-Length: " + LENGTH + b"\r\nContent-Type: application/vscode-jsonrpc; charset=utf-8\r\n\r\n",
        b"Content-Type: application/vscode-jsonrpc\r\nContent-Length: " + LENGTH + b"\r\n\r\n",
        b"Content-Length: " + LENGTH + b"\r\n",
    ],
)
async def test_headers_as_clients_write_them(head: bytes) -> None:
    assert await bodies((head + GOOD) * 2) == [GOOD, GOOD]


async def test_a_text_about_headers_is_a_body() -> None:
    body = json.dumps({"text": "Content-Length: 5\r\n\r\nContent-Length: 7\n"}).encode()
    assert await bodies(framed(body) + framed(GOOD)) == [body, GOOD]


@given(st.lists(st.binary(max_size=40)), st.integers(1, 50))
def test_whole_messages_are_taken_as_they_are(texts: list[bytes], size: int) -> None:
    stream = b"".join(map(framed, texts))
    assert asyncio.run(bodies(stream, size)) == texts


async def test_ten_megabytes_in_one_message_and_in_one_line_of_noise() -> None:
    body = b'"' + b"x" * 10_000_000 + b'"'
    assert await bodies(b"a" * 10_000_000 + framed(body) + framed(GOOD), 1 << 16) == [body, GOOD]
