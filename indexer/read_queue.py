"""The queue of files to read: files that the user changed come before files that a scan found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice

from indexer.locations import FileKey

BATCH_FILES = 48  # files in one message to a worker: about 0.2 s of work, so that a saved file need not wait long
BATCH_BYTES = 600_000


class ReadQueue:
    """Files to read, in an urgent and a normal queue, and the files that a worker is reading.

    A file that changes while a worker reads it stays in the queue until that worker has finished, so the results of
    one file arrive in order.
    """

    def __init__(self) -> None:
        self._urgent: dict[FileKey, None] = {}
        self._backlog: dict[FileKey, None] = {}
        self._in_progress: set[FileKey] = set()

    def __bool__(self) -> bool:
        return bool(self._urgent or self._backlog or self._in_progress)

    def __len__(self) -> int:
        return len(self._urgent) + len(self._backlog) + len(self._in_progress)

    def __contains__(self, key: FileKey) -> bool:
        return key in self._urgent or key in self._backlog or key in self._in_progress

    def __iter__(self) -> Iterator[FileKey]:
        return chain(self._urgent, self._backlog, self._in_progress)

    @property
    def is_long(self) -> bool:
        """Whether many files are left, so that intermediate results are published only at intervals."""
        return len(self) > 2 * BATCH_FILES

    def add_first(self, keys: Iterable[FileKey]) -> None:
        """Queue files ahead of those that a scan found."""
        for key in keys:
            self._backlog.pop(key, None)
            self._urgent[key] = None

    def add(self, keys: Iterable[FileKey]) -> None:
        """Queue files after all others."""
        for key in keys:
            if key not in self._urgent:
                self._backlog[key] = None

    def remove_root(self, root: str) -> None:
        """Remove a workspace folder's files, except those that a worker is reading."""
        for source in (self._urgent, self._backlog):
            for key in [key for key in source if key[0] == root]:
                del source[key]

    def take_batch(self, size_of: Callable[[FileKey], int]) -> list[FileKey]:
        """Return the next batch of files and mark them as in progress.

        Return an empty list if no file can be read now.
        """
        batch: list[FileKey] = []
        size = 0
        for source in (self._urgent, self._backlog):
            for key in list(islice(source, 4 * BATCH_FILES)):
                if key in self._in_progress:
                    continue
                del source[key]
                batch.append(key)
                size += size_of(key)
                if len(batch) >= BATCH_FILES or size >= BATCH_BYTES:
                    break
            if batch:
                break
        self._in_progress.update(batch)
        return batch

    def finish(self, keys: Iterable[FileKey]) -> None:
        """Remove files from those in progress."""
        self._in_progress.difference_update(keys)
