"""The index on disk: one SQLite file for each workspace folder, so that a restart reads only files that have changed.

One table has a row for each file as it was last read (path, time, size, digest). The other table maps the digest of a
content to its record: files with the same content share a record, and a record survives a switch to another branch and
back. Paths are stored as bytes, because not every file name is UTF-8.

The store is a cache, and everything in it can be computed again from the workspace. So writes are not synced to disk
one by one (SQLite's write-ahead log keeps the file consistent if the process is killed), a file that is damaged or has
another schema is deleted, and the index works without a store when the disk is full. Two servers on one folder write
the same records under the same keys, and wait for each other's short transactions.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from indexer.chunking import Chunking
from indexer.worker import Outcome

SCHEMA = 5  # increase this when the format of a record, the limits of chunks, or the rules for secrets change
MAX_AGE_DAYS = 30
_UNUSED_SECONDS = 14 * 86_400  # how long a record is kept after no file has its content any more

T = TypeVar("T")
_log = logging.getLogger(__name__)
_TABLES = """
CREATE TABLE IF NOT EXISTS file (
    path BLOB PRIMARY KEY, mtime_ns INTEGER, size INTEGER, digest BLOB, reason TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS content (digest BLOB PRIMARY KEY, used INTEGER, record BLOB);
"""
# `used` is the time (seconds since 1970) when a file last had this content.
_USED_UNTIL_NOW = """
UPDATE content SET used = ? WHERE digest = (SELECT digest FROM file WHERE path = ?) AND digest != ?
"""


@dataclass(frozen=True, slots=True)
class Saved:
    """A file in the store. `record` is empty for a file that was left out because of its content."""

    path: str
    mtime_ns: int
    size: int
    digest: bytes
    record: bytes


class Store:
    """The saved index of one folder. Only one thread at a time may use it.

    No method raises OSError or sqlite3.Error: after an error, it logs a warning and continues without a saved index.
    """

    def __init__(self, cache_dir: Path, root: str, chunking: Chunking, *, max_bytes: int = 2_000_000_000) -> None:
        name = blake2b(os.fsencode(f"{root}\0{chunking}"), digest_size=12).hexdigest()
        self.file = cache_dir / f"{name}.sqlite3"
        self._max_bytes = max_bytes
        self._connection: sqlite3.Connection | None = None
        self._warned = False
        self._interruptible = False
        try:
            cache_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._open()
        except (OSError, sqlite3.Error) as error:
            self._disable(error)

    def load(self) -> list[Saved]:
        """Return every file in the store."""
        query = """SELECT path, mtime_ns, size, file.digest, coalesce(record, x'') FROM file
                   LEFT JOIN content USING (digest) WHERE reason != '' OR record IS NOT NULL"""
        rows = self._run(lambda connection: connection.execute(query).fetchall())
        return [Saved(os.fsdecode(path), *row) for path, *row in rows or ()]

    def save(self, outcomes: Sequence[Outcome]) -> None:
        """Save the workers' results in one transaction: new records, unchanged files, and files deleted or left out."""
        now = int(time.time())
        gone = [(os.fsencode(o.path),) for o in outcomes if o.reason is not None and o.reason.rule == "missing"]
        files = [
            (os.fsencode(o.path), o.mtime_ns, o.size, o.digest, o.reason.rule if o.reason else "")
            for o in outcomes
            if o.digest and (o.reason is None or o.reason.rule != "missing")
        ]
        contents = [(o.digest, now, o.record) for o in outcomes if o.record is not None]

        left = [(now, os.fsencode(o.path), o.digest) for o in outcomes]

        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany(_USED_UNTIL_NOW, left)
                connection.executemany("DELETE FROM file WHERE path = ?", gone)
                connection.executemany("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?)", files)
                connection.executemany("INSERT OR REPLACE INTO content VALUES (?, ?, ?)", contents)

        self._run(write)

    def forget(self, paths: Iterable[str]) -> None:
        """Delete the entries of files that are no longer in the workspace."""
        rows = [(os.fsencode(path),) for path in paths]
        left = [(int(time.time()), path, b"") for (path,) in rows]

        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany(_USED_UNTIL_NOW, left)
                connection.executemany("DELETE FROM file WHERE path = ?", rows)

        self._run(write)

    def compact(self) -> None:
        """Delete records that no file has used for two weeks, or all unused records if the database is too large."""

        def delete_unused(connection: sqlite3.Connection) -> None:
            too_large = self.file.stat().st_size > self._max_bytes
            since = int(time.time()) - (0 if too_large else _UNUSED_SECONDS)
            unused = "DELETE FROM content WHERE used <= ? AND digest NOT IN (SELECT digest FROM file)"
            with connection:
                in_use = "UPDATE content SET used = ? WHERE digest IN (SELECT digest FROM file)"
                connection.execute(in_use, (int(time.time()),))
                removed = connection.execute(unused, (since,)).rowcount
            if too_large and removed:
                self._interruptible = True
                connection.execute("VACUUM")

        try:
            self._run(delete_unused)
        finally:
            self._interruptible = False

    def interrupt(self) -> None:
        """Interrupt `compact` if it is rewriting the database, which can take long. Any thread may call this."""
        connection = self._connection
        if self._interruptible and connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.interrupt()

    def close(self) -> None:
        """Close the database."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _open(self) -> None:
        try:
            self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
                raise
            _log.info("the saved index %s is damaged (%s) and is built again", self.file.name, error)
            self._discard()
            self._connect()
        with contextlib.suppress(OSError):
            os.utime(self.file)  # `delete_old_indexes` reads this time
            self.file.chmod(0o600)

    def _connect(self) -> None:
        connection = sqlite3.connect(self.file, timeout=10.0, check_same_thread=False)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, SCHEMA):
                raise sqlite3.DatabaseError(f"schema {version} instead of {SCHEMA}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")
            connection.execute("SELECT count(*) FROM file").fetchone()
        except sqlite3.Error:
            connection.close()
            raise
        self._connection = connection

    def _discard(self) -> None:
        for end in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                self.file.with_name(self.file.name + end).unlink()

    def _run(self, action: Callable[[sqlite3.Connection], T]) -> T | None:
        """Run an action on the database. On failure, log the problem once and continue without a saved index."""
        if self._connection is None:
            return None
        try:
            return action(self._connection)
        except (sqlite3.Error, OSError) as error:
            if "interrupted" in str(error):
                return None
            if "locked" in str(error) or "busy" in str(error):
                _log.info("the saved index is in use by another server; this change is not saved")
                return None
            self._disable(error)
            if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
                self._discard()
            return None

    def _disable(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            _log.warning("cannot save the index (%s: %s); it will be built again at the next start", self.file, error)
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


def delete_old_indexes(cache_dir: Path, *, now: float | None = None, max_bytes: int = 2_000_000_000) -> list[Path]:
    """Delete saved indexes that were not opened for 30 days, then the oldest until the rest fits in `max_bytes`.

    Return the deleted files. A server that has a deleted file open can use the file until it closes the file. The index
    that was opened last is in use. That index is kept even if it is larger than `max_bytes`, because a new one would
    have the same size.
    """
    now = time.time() if now is None else now
    found = []
    for file in cache_dir.glob("*.sqlite3"):
        with contextlib.suppress(OSError):
            status = file.stat()
            found.append((status.st_mtime, status.st_size, file))
    deleted, total = [], 0
    for opened, size, file in sorted(found, reverse=True):
        total += size
        if opened < now - MAX_AGE_DAYS * 86_400 or (total > max_bytes and total > size):
            total -= size
            for end in ("", "-wal", "-shm"):
                with contextlib.suppress(OSError):
                    file.with_name(file.name + end).unlink()
            deleted.append(file)
    return deleted
