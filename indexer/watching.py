"""Changes on the disk: native events where the system has them, else the word that one must look oneself.

Events only say *where* something may have changed; the writer looks at the disk itself, so an event too many costs one
`stat` and one lost among thousands is found by the next scan. When native events cannot be had (no support, the watch
limit, a network file system that refuses), `start` returns the reason once and the writer compares the disk at
intervals instead.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

# Not that something is read: where a queue of events overflows, watchdog lists the folders again, and in a workspace of
# some ten thousand folders (environments, `node_modules`) the events of that listing would overflow it anew, for ever.
_EVENTS: list[type[FileSystemEvent]] = [
    DirCreatedEvent, DirDeletedEvent, DirMovedEvent, FileClosedEvent, FileCreatedEvent, FileDeletedEvent,
    FileModifiedEvent, FileMovedEvent,
]  # fmt: skip


class Watcher(FileSystemEventHandler):
    """Watches the folders of a workspace; `on_change` is called on watchdog's thread with absolute paths."""

    def __init__(self, on_change: Callable[[list[str]], None]) -> None:
        self._on_change = on_change
        self._observer: BaseObserver | None = None

    def start(self, roots: list[Path]) -> str:
        """Watch these folders instead of those before; return why not, or "" if it works."""
        self.stop()
        observer = Observer()
        try:
            for root in roots:
                observer.schedule(self, str(root), recursive=True, event_filter=_EVENTS)
            observer.start()
        except OSError as error:
            observer.unschedule_all()
            if error.errno in (errno.ENOSPC, errno.EMFILE):
                return "the system's limit of watched folders is reached (Linux: fs.inotify.max_user_watches)"
            return f"watching is not possible here ({error.strerror or error})"
        self._observer = observer
        return ""

    def stop(self) -> None:
        """Watch nothing any more."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(timeout=5.0)
            self._observer = None

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Pass on the paths of an event: a rename has two."""
        paths = (event.src_path, event.dest_path)
        self._on_change([os.fsdecode(path) for path in paths if path])
