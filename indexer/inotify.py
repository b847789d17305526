"""File system events on Linux: one inotify watch for each directory that the index reads.

A recursive watch of a workspace would also use a watch for every directory of `node_modules` and of build output, and
Linux limits the number of watches for all programs of a user together. So a scan adds a watch for each directory that
it lists, just before it lists the directory. A watch that is added after the listing could miss a change between the
two.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable

from inotify_simple import INotify, flags

from indexer.scans import MISSING

LIMIT = "the limit of watched folders is reached (fs.inotify.max_user_watches)"
_MASK = (
    flags.CLOSE_WRITE | flags.MODIFY | flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO
    | flags.DELETE_SELF | flags.MOVE_SELF | flags.ONLYDIR | flags.EXCL_UNLINK
)  # fmt: skip
_GONE = flags.IGNORED | flags.DELETE_SELF | flags.MOVE_SELF | flags.UNMOUNT
_POLL_MS = 200  # milliseconds between two checks of the thread whether to stop


class InotifyEvents:
    """Watches directories below some roots. Calls `on_change` on its own thread, with absolute paths.

    Raises OSError if the system has no inotify instance left.
    """

    def __init__(self, on_change: Callable[[list[str]], None]) -> None:
        self._on_change = on_change
        self._lock = threading.Lock()
        self._directories: dict[int, str] = {}
        self._problems: dict[str, str] = {}
        self._stopping = threading.Event()
        self._inotify = INotify(nonblocking=True)
        self._thread = threading.Thread(target=self._run, name="index-events", daemon=True)
        self._thread.start()

    def set_roots(self, roots: list[str]) -> None:
        """Watch only below these directories (real paths). This removes watches; `watch` adds them."""
        with self._lock:
            self._problems = {root: self._problems.get(root, "") for root in roots}
            outside = [wd for wd, at in self._directories.items() if not any(_is_below(at, root) for root in roots)]
        self._remove(outside)

    def watch(self, root: str, directory: str) -> None:
        """Watch a directory (real path) of a root. Call this just before listing the directory."""
        problem = self._problems.get(root)
        if problem is None or problem == LIMIT:
            return
        try:
            wd = self._inotify.add_watch(directory, _MASK)
        except (OSError, ValueError) as error:
            self._failed(root, directory, error)
            return
        with self._lock:
            self._directories[wd] = directory
            if directory == root:
                self._problems[root] = ""

    def problem(self, root: str) -> str:
        """Return why the events of a root are incomplete, or "" if they are complete."""
        return self._problems.get(root, "")

    def stop(self) -> None:
        """Stop watching."""
        self._stopping.set()
        self._thread.join(1.0)
        with contextlib.suppress(OSError):
            self._inotify.close()

    def _failed(self, root: str, directory: str, error: OSError | ValueError) -> None:
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.ENOSPC, errno.ENOMEM):
            # Remove all watches of the root: those for only a part of it are of little use, and other programs need
            # watches too.
            with self._lock:
                self._problems[root] = LIMIT
                others = [other for other in self._problems if other != root]
                wds = [
                    wd
                    for wd, at in self._directories.items()
                    if _is_below(at, root) and not any(_is_below(at, other) for other in others)
                ]
            self._remove(wds)
        elif directory == root:
            self._problems[root] = MISSING if number in (errno.ENOENT, errno.ENOTDIR) else str(error)
        elif number == errno.EACCES:
            self._watch_permissions(os.path.dirname(directory))  # noqa: PTH120
        # In all other cases, no event is missing: the directory was deleted, which causes an event for its parent.

    def _watch_permissions(self, parent: str) -> None:
        """Watch the permissions in a directory that contains one that cannot be read.

        Other directories are watched without them, because each copied or unpacked file would cause such an event.
        """
        with self._lock:
            is_watched = parent in self._directories.values()
        if is_watched:
            with contextlib.suppress(OSError, ValueError):
                self._inotify.add_watch(parent, flags.ATTRIB | flags.ONLYDIR | flags.MASK_ADD)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                events = self._inotify.read(timeout=_POLL_MS)
            except (OSError, ValueError):
                return
            paths: dict[str, None] = {}
            for event in events:
                self._take(event.wd, event.mask, event.name, paths)
            if paths and not self._stopping.is_set():
                self._on_change(list(paths))

    def _take(self, wd: int, mask: int, name: str, paths: dict[str, None]) -> None:
        """Add the paths that changed, according to an event, to `paths`."""
        if mask & flags.Q_OVERFLOW:  # events were lost: any directory may have changed
            paths.update(dict.fromkeys(self._problems))
            return
        with self._lock:
            directory = self._directories.get(wd)
        if directory is None:
            return
        if mask & _GONE:
            if mask & flags.IGNORED:
                with self._lock:
                    self._directories.pop(wd, None)
            elif mask & flags.MOVE_SELF:
                self._remove([wd])
            if directory in self._problems:
                self._problems[directory] = MISSING
                paths[directory] = None
            return
        if mask & flags.ATTRIB and not (mask & flags.ISDIR and name):
            return  # permissions matter only for the directories in a directory
        path = os.path.join(directory, name)  # noqa: PTH118
        paths[path] = None
        if mask & flags.ISDIR and mask & flags.MOVED_FROM:
            # These watches would report the old names. The scan of the new directory adds new watches.
            with self._lock:
                moved = [wd for wd, at in self._directories.items() if _is_below(at, path)]
            self._remove(moved)

    def _remove(self, wds: list[int]) -> None:
        for wd in wds:
            with self._lock:
                self._directories.pop(wd, None)
            with contextlib.suppress(OSError, ValueError):
                self._inotify.rm_watch(wd)


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip(os.sep) + os.sep)
