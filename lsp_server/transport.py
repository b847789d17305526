"""Bytes in, bytes out: stdio and TCP, each connection with a server of its own.

pygls brings both, but its stdio reader blocks a pool thread that is joined at exit: an editor that sends `exit` and
keeps the pipe open would leave a process behind. Here stdin and stdout have a daemon thread each, so that neither a
silent editor nor one that stops reading can block the event loop or the exit.

Standard output belongs to the protocol. A stray print, in Python or in native code, would break the framing: the real
stdout is duplicated and file descriptor 1 then points to stderr.
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

if TYPE_CHECKING:
    from pygls.io_ import Writer

    from lsp_server.server import RepoformerServer

log = logging.getLogger(__name__)

_READ_SIZE = 1 << 16
_FLUSH_SECONDS = 2.0


async def serve_stdio(make_server: Callable[[], RepoformerServer]) -> int:
    """Serve one editor over stdin and stdout until it is gone; returns the exit status."""
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
    """Serve editors that connect to `host:port`; returns when the last of them has gone, or on a signal.

    Raises `OSError` where the address cannot be listened on.
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
    """Run one connection until the client asks to exit, hangs up, or is found dead."""
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
    """Handle messages in the order in which they come.

    What one began takes its first step before the next one is handled: requests run in tasks, and where an edit
    arrives together with the request before it, that request would see the edit.
    """
    while (body := await frames.next()) is not None:
        server.protocol.receive(body)
        await asyncio.sleep(0)


@contextlib.contextmanager
def _stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on SIGTERM and SIGINT, where the platform's event loop can."""
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
    """File descriptors of the real stdin and stdout, binary; later prints go to stderr."""
    if sys.platform == "win32":
        import msvcrt

        for descriptor in (0, 1):
            msvcrt.setmode(descriptor, os.O_BINARY)
    sys.stdout.flush()
    sink = os.dup(1)
    os.dup2(2, 1)
    return 0, sink


def _feed(source: int, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
    # `os.read` and not `sys.stdin`: a daemon thread that holds the lock of a buffered reader aborts the interpreter's
    # shutdown.
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is listening any more
        while data := _read(source):
            loop.call_soon_threadsafe(reader.feed_data, data)
        loop.call_soon_threadsafe(reader.feed_eof)


def _read(source: int) -> bytes:
    try:
        return os.read(source, _READ_SIZE)
    except OSError:
        return b""


class _PipeWriter:
    """Writes to a file descriptor from a thread of its own, in order."""

    def __init__(self, sink: int) -> None:
        self._sink = sink
        self._queue: queue.SimpleQueue[bytes | threading.Event] = queue.SimpleQueue()
        threading.Thread(target=self._drain, name="stdout", daemon=True).start()

    def write(self, data: bytes) -> None:
        """Queue `data`; never blocks."""
        self._queue.put(data)

    def flush(self, timeout: float) -> None:
        """Wait until all that was written so far is out, `timeout` seconds at most."""
        written = threading.Event()
        self._queue.put(written)
        written.wait(timeout)

    def close(self) -> None:
        """Nothing to do: the process ends with its pipe."""

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
                except OSError:  # the editor is gone; the end of stdin says so too
                    broken = True
