"""Serve over stdio and TCP. Each connection has its own server.

pygls can also serve over stdio. But its reader of stdin blocks in a pool thread, and Python waits for that thread at
exit: if an editor sends `exit` and keeps the pipe open, the process does not end. In this module, stdin and stdout have
a daemon thread each. So an editor that sends nothing, or that reads nothing, blocks neither the event loop nor the
exit.

Only the protocol may write to standard output, because any other output would be an invalid message. So the file
descriptor of stdout is duplicated for the protocol, and file descriptor 1 then points to stderr. This also affects
native code.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from lsp_server.framing import Frames
from policy import tracing

if TYPE_CHECKING:
    from pygls.io_ import Writer

    from lsp_server.server import RepoformerServer

log = logging.getLogger(__name__)

_READ_SIZE = 1 << 16
_FLUSH_SECONDS = 2.0


async def serve_stdio(make_server: Callable[[], RepoformerServer]) -> int:
    """Serve one editor over stdin and stdout until it disconnects. Return the exit status."""
    source, sink = _take_stdio()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    threading.Thread(target=_feed, args=(source, reader, loop), name="stdin", daemon=True).start()
    writer = _PipeWriter(sink)
    server = make_server()
    with _stopping_on_signals(server.session.stop):
        status = await _serve(server, reader, writer)
    await asyncio.to_thread(writer.flush, _FLUSH_SECONDS)
    return status


async def serve_tcp(make_server: Callable[[], RepoformerServer], host: str, port: int) -> int:
    """Serve editors that connect to `host:port`, until the last one disconnects or a signal arrives.

    Return the exit status. Raises `OSError` if the server cannot listen on the address.
    """
    connections: set[asyncio.Task[None]] = set()
    servers: set[RepoformerServer] = set()
    done = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        server = make_server()
        servers.add(server)
        try:
            await _serve(server, reader, writer)
        finally:
            writer.close()
            servers.discard(server)
            connections.discard(task)
            if not connections:
                done.set()

    def stop() -> None:
        for server in servers:
            server.session.stop()
        if not servers:
            done.set()

    listener = await asyncio.start_server(connected, host, port)
    for address in listener.sockets:
        print("listening on {}:{}".format(*address.getsockname()[:2]), file=sys.stderr, flush=True)
    with _stopping_on_signals(stop):
        await done.wait()
    listener.close()
    return 0


async def _serve(server: RepoformerServer, reader: asyncio.StreamReader, writer: Writer | asyncio.StreamWriter) -> int:
    """Serve one client until it sends `exit`, disconnects, or its process ends. Return the exit status."""
    server.protocol.set_writer(writer)
    messages = asyncio.create_task(_receive(server, Frames(reader)))
    stopped = asyncio.create_task(server.session.stopped.wait())
    await asyncio.wait({messages, stopped}, return_when=asyncio.FIRST_COMPLETED)
    for task in (messages, stopped):
        task.cancel()
    for result in await asyncio.gather(messages, stopped, return_exceptions=True):
        if isinstance(result, Exception) and not isinstance(result, ConnectionError):
            log.error("the connection ended: %s", type(result).__name__)
    await server.session.close()
    server.log_handler.detach()
    return server.session.exit_status


async def _receive(server: RepoformerServer, frames: Frames) -> None:
    """Handle messages in the order of their arrival.

    A request runs in a task. The task runs its first step before the next message is handled. Otherwise, a request
    would see the edit that arrives just after it.
    """
    while (body := await frames.next()) is not None:
        with tracing.message():
            server.protocol.receive(body)
        await asyncio.sleep(0)


@contextlib.contextmanager
def _stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on SIGTERM and SIGINT while the `with` block runs, if the event loop supports signals."""
    loop = asyncio.get_running_loop()
    added = []
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, RuntimeError):
            loop.add_signal_handler(number, stop)
            added.append(number)
    try:
        yield
    finally:
        for number in added:
            loop.remove_signal_handler(number)


def _take_stdio() -> tuple[int, int]:
    """Return file descriptors of stdin and stdout, in binary mode. Redirect later output to stderr."""
    if sys.platform == "win32":
        import msvcrt

        for descriptor in (0, 1):
            msvcrt.setmode(descriptor, os.O_BINARY)
    sys.stdout.flush()
    sink = os.dup(1)
    os.dup2(2, 1)
    return 0, sink


def _feed(source: int, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
    # Read the file descriptor instead of `sys.stdin`: if a daemon thread holds the lock of a buffered reader at exit,
    # the interpreter aborts.
    with contextlib.suppress(RuntimeError):  # raised if the loop is closed
        while data := _read(source):
            loop.call_soon_threadsafe(reader.feed_data, data)
        loop.call_soon_threadsafe(reader.feed_eof)


def _read(source: int) -> bytes:
    try:
        return os.read(source, _READ_SIZE)
    except OSError:
        return b""


class _PipeWriter:
    """Writes data to a file descriptor in its own thread, in the order in which the data was queued."""

    def __init__(self, sink: int) -> None:
        self._sink = sink
        self._queue: queue.SimpleQueue[bytes | threading.Event] = queue.SimpleQueue()
        threading.Thread(target=self._drain, name="stdout", daemon=True).start()

    def write(self, data: bytes) -> None:
        """Queue `data`. This never blocks."""
        self._queue.put(data)

    def flush(self, timeout: float) -> None:
        """Wait up to `timeout` seconds until all data that is queued now is written."""
        written = threading.Event()
        self._queue.put(written)
        written.wait(timeout)

    def close(self) -> None:
        """Do nothing. The pipe is closed when the process ends."""

    def _drain(self) -> None:
        broken = False
        while True:
            item = self._queue.get()
            if isinstance(item, threading.Event):
                item.set()
                continue
            view = memoryview(item)
            while view and not broken:
                try:
                    view = view[os.write(self._sink, view) :]
                except OSError:  # the editor no longer reads; the server ends when stdin ends
                    broken = True
