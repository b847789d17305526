"""The worker process that reads and parses files and counts their words. `indexer.pool` starts it.

The worker is a separate process for two reasons: in the server, parsing would hold Python's global lock and delay
keystrokes, and a grammar is native code and may crash. When the server dies, the worker's input ends, and the worker
exits. It is not forked, because the server has threads. It exchanges length-prefixed pickles with the server over a
private pipe.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sqlite3
import struct
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from indexer.chunking import Chunking
from indexer.document import DamagedRecord, Extract
from indexer.extract import extract
from indexer.languages import SHEBANG_LENGTH, language_of
from indexer.reading import check_text, decode, read
from indexer.rules import Reason, mtime_ns_of

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Task:
    """A file to process: from the disk, or the text of an open buffer.

    `known` is the digest of the file in the index; if the file still has this digest, it is not parsed. `plain` asks
    for windows instead of parsing, because the grammar crashed on this file. `store` is the path of the folder's saved
    index, which may still contain the record, for instance from before a switch to another branch and back.
    """

    root: str
    path: str
    chunking: Chunking
    max_bytes: int
    text: str | None = None
    lsp_id: str = ""
    known: bytes = b""
    plain: bool = False
    store: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a task: a record (`Extract.to_bytes`), no change, or the reason for leaving the file out.

    `mtime_ns` and `size` are from before the file was read, so a file that changes meanwhile counts as changed.
    For the text of a buffer (`from_buffer`), both are 0.
    """

    root: str
    path: str
    digest: bytes = b""
    mtime_ns: int = 0
    size: int = 0
    record: bytes | None = None
    reason: Reason | None = None
    from_buffer: bool = False


def perform(task: Task) -> Outcome:
    """Run one task. Never raises an error because of a file's content."""
    mtime_ns = size = 0
    from_buffer = task.text is not None
    if task.text is None:
        file = Path(task.root, task.path)
        try:
            status = file.stat()
        except OSError as error:
            return Outcome(task.root, task.path, reason=Reason("missing", f"{file}: {error.strerror}"))
        mtime_ns, size = mtime_ns_of(status), status.st_size
        data = read(file, task.max_bytes)
        if isinstance(data, Reason):
            return Outcome(task.root, task.path, b"", mtime_ns, size, reason=data)
        digest = digest_of(data, task)
        if digest == task.known:
            return Outcome(task.root, task.path, digest, mtime_ns, size)
        if (record := _saved(task.store, digest)) is not None:
            return Outcome(task.root, task.path, digest, mtime_ns, size, record)
        text = decode(data)
    else:
        digest = digest_of(task.text.encode("utf-8", "replace"), task)
        text = check_text(task.text)
    if isinstance(text, Reason):
        return Outcome(task.root, task.path, digest, mtime_ns, size, reason=text, from_buffer=from_buffer)
    language = None if task.plain else language_of(task.path, task.lsp_id, text)
    record = extract(text, language, task.chunking, root=task.root, path=task.path).to_bytes()
    return Outcome(task.root, task.path, digest, mtime_ns, size, record, from_buffer=from_buffer)


def digest_of(data: bytes, task: Task) -> bytes:
    """Return the key of a record: a hash of the content and of everything that determines its chunks."""
    language = language_of(task.path, task.lsp_id, data[:SHEBANG_LENGTH].decode("latin-1"))
    shape = f"{language.id if language else ''} {task.chunking} {task.plain}"
    return blake2b(data, digest_size=16, person=blake2b(shape.encode(), digest_size=16).digest()).digest()


@cache
def _reader(store: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{Path(store).as_uri()}?mode=ro", uri=True, timeout=0.5)


def _saved(store: str, digest: bytes) -> bytes | None:
    """Return the record with this digest from the saved index, or None if it is not there or cannot be read."""
    if not store:
        return None
    try:
        row = _reader(store).execute("SELECT record FROM content WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            return None
        Extract.from_bytes("", "", row[0])
    except (sqlite3.Error, DamagedRecord):
        return None
    record: bytes = row[0]
    return record


def send(stream: BinaryIO, message: object) -> None:
    """Write one message."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Read one message. Raises EOFError when the other process has ended."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)


def main() -> None:
    """Run batches of tasks until the input ends."""
    # A library may print to standard output. The messages use a copy of this file descriptor, and later output goes to
    # standard error, so that such text cannot mix with the messages.
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with contextlib.suppress(OSError, AttributeError):
        os.nice(5)
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            send(sink, [perform(task) for task in receive(source)])


if __name__ == "__main__":
    main()
