"""File system events for workspace folders, and whether the events of each folder are complete.

Events only say *where* something may have changed, and the index then checks the disk itself. So a superfluous event
costs one `stat`. The events of a folder may be incomplete: the limit of watches is reached, the folder is on a network
file system, or it does not exist yet. `Watcher.problem` then returns the reason, and the index compares that folder
with the disk at intervals.

On Linux, watches are added directory by directory (`indexer.inotify`). On macOS and Windows, one watch covers a whole
tree.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from typing import Protocol

import psutil
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from indexer.scans import MISSING

_NETWORK = frozenset(("nfs", "nfs3", "nfs4", "cifs", "smb3", "smbfs", "afpfs", "9p", "vboxsf", "prl_fs", "afs", "ceph",
                      "lustre", "gpfs", "glusterfs", "webdav", "ncpfs", "drvfs"))  # fmt: skip
_NETWORK_FUSE = ("fuse.sshfs", "fuse.rclone", "fuse.s3fs", "fuse.gvfs", "fuse.gluster", "fuse.ceph", "fuse.vmhgfs",
                 "fuse.portal", "fuse.davfs", "osxfuse", "macfuse")  # fmt: skip


class Events(Protocol):
    """A source of file system events. One implementation is for Linux, the other for macOS and Windows."""

    def set_roots(self, roots: list[str]) -> None:
        """Watch these directories (real paths) and no others."""

    def watch(self, root: str, directory: str) -> None:
        """Watch a directory (real path) of a root. Call this just before listing the directory."""

    def problem(self, root: str) -> str:
        """Return why the events of a root are incomplete, or "" if they are complete."""

    def stop(self) -> None:
        """Stop watching."""


class Watcher:
    """Watches the folders of a workspace. Calls `on_change` on its own thread, with absolute paths."""

    def __init__(self, on_change: Callable[[list[str]], None]) -> None:
        self._on_change = on_change
        self._events: Events | None = None
        self._no_events = ""
        self._network: dict[str, str] = {}

    def set_roots(self, roots: Sequence[str]) -> None:
        """Watch these folders (real paths) and no others."""
        if self._events is None:
            try:
                self._events = _events(self._on_change)
                self._no_events = ""
            except (OSError, ImportError) as error:
                self._no_events = f"the system reports no events for it ({error})"
        self._network = {root: network_file_system(root) for root in roots}
        if self._events is not None:
            self._events.set_roots(list(roots))

    def watch(self, root: str, directory: str) -> None:
        """Watch a directory (real path) of a root. Call this just before listing the directory."""
        if self._events is not None:
            self._events.watch(root, directory)

    def problem(self, root: str) -> str:
        """Return why the events of a root are incomplete, or "" if they are complete."""
        if self._events is None:
            return self._no_events or "nothing is watched"
        if kind := self._network.get(root):
            return f"it is on a network file system ({kind}), which does not report changes by other machines"
        return self._events.problem(root)

    def stop(self) -> None:
        """Stop watching. This takes well under a second."""
        if self._events is not None:
            self._events.stop()
            self._events = None


class TreeEvents(FileSystemEventHandler):
    """Events for whole directory trees, on macOS and Windows."""

    def __init__(self, on_change: Callable[[list[str]], None]) -> None:
        self._on_change = on_change
        self._watches: dict[str, ObservedWatch] = {}
        self._problems: dict[str, str] = {}
        self._observer: BaseObserver = Observer()
        self._observer.start()

    def set_roots(self, roots: list[str]) -> None:
        """Watch these directories (real paths) and no others."""
        for root in [root for root in self._watches if root not in roots]:
            self._observer.unschedule(self._watches.pop(root))
        self._problems = dict.fromkeys(roots, "")
        for root in roots:
            self.watch(root, root)

    def watch(self, root: str, directory: str) -> None:
        """Watch a root that could not be watched before because it did not exist. For other directories, do nothing."""
        if directory != root or root not in self._problems or (root in self._watches and not self._problems[root]):
            return
        if (old := self._watches.pop(root, None)) is not None:  # the root was deleted, and may exist again
            self._observer.unschedule(old)
        try:
            self._watches[root] = self._observer.schedule(self, root, recursive=True)
            self._problems[root] = ""
        except (OSError, RuntimeError) as error:
            self._problems[root] = str(error)

    def problem(self, root: str) -> str:
        """Return why the events of a root are incomplete, or "" if they are complete."""
        return self._problems.get(root, "")

    def stop(self) -> None:
        """Stop watching."""
        self._observer.stop()
        self._observer.join(timeout=0.5)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Report the paths of an event. A rename has two paths."""
        if event.event_type in ("opened", "closed_no_write"):
            return
        paths = [os.fsdecode(path) for path in (event.src_path, event.dest_path) if path]
        if event.event_type in ("deleted", "moved") and paths[0] in self._problems:
            self._problems[paths[0]] = MISSING
        self._on_change(paths)


def network_file_system(directory: str) -> str:
    """Return the type of the network file system that contains a directory, or "" if it is local."""
    try:
        mounts = psutil.disk_partitions(all=True)
    except (OSError, RuntimeError, ValueError):
        return ""
    inside = [mount for mount in mounts if directory == mount.mountpoint or directory.startswith(
        mount.mountpoint.rstrip(os.sep) + os.sep)]  # fmt: skip
    kind = max(inside, key=lambda mount: len(mount.mountpoint)).fstype.lower() if inside else ""
    return kind if kind in _NETWORK or kind.startswith(_NETWORK_FUSE) else ""


def _events(on_change: Callable[[list[str]], None]) -> Events:
    if platform.system() == "Linux":
        from indexer.inotify import InotifyEvents

        return InotifyEvents(on_change)
    return TreeEvents(on_change)
