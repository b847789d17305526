"""Map paths to workspace folders, so that each file has one identity.

A folder may be opened through a symbolic link and a document by its real path, or the reverse. So paths are compared as
real paths, in which all links are followed. Folders keep the name by which they were opened, and messages show that
name. With nested folders, a file belongs to the innermost one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

FileKey = tuple[str, str]  # the path of a workspace folder, and the path of a file in it (POSIX, relative)


class Locations:
    """The workspace folders at one moment. Immutable.

    The constructor follows links on disk, so do not call it on the event loop.
    """

    def __init__(self, roots: Iterable[str] = ()) -> None:
        real_of = {root: os.path.realpath(root) for root in roots}
        by_real = {real: root for root, real in reversed(real_of.items())}  # keep the first of two names of a folder
        inner_first = sorted(by_real, key=lambda real: (-len(real), real))
        self.roots: Mapping[str, str] = MappingProxyType({by_real[real]: real for real in inner_first})
        spellings = {**{real: real for real in by_real}, **real_of}
        self._spellings = sorted(spellings.items(), key=lambda item: -len(item[0]))
        self._inner = {root: self._inner_prefixes(real) for root, real in self.roots.items()}

    def real_document(self, path: str) -> str:
        """Return the real path of an absolute path: all links are followed."""
        return os.path.realpath(path)

    def real_entry(self, path: str) -> str:
        """Return the real path of a directory entry, which may itself be a link, and may no longer exist.

        If the path is in a workspace folder, only the links in the folder's own path are followed, not links inside
        the folder: an entry that is a link now may have been indexed when it was a file.
        """
        for spelled, real in self._spellings:
            if (relative := _relative(path, spelled)) is not None:
                return os.path.join(real, relative) if relative else real  # noqa: PTH118
        directory, name = os.path.split(path)
        return os.path.join(os.path.realpath(directory), name)  # noqa: PTH118

    def key(self, real: str) -> FileKey | None:
        """Return the innermost folder that contains a real path, and the path relative to it, or None."""
        for root, real_root in self.roots.items():
            if relative := _relative(real, real_root):
                return root, Path(relative).as_posix()
        return None

    def real(self, key: FileKey) -> str:
        """Return a file's real path."""
        root, path = key
        return str(Path(self.roots[root], path))

    def has(self, key: FileKey) -> bool:
        """Return whether a file belongs to a folder of the workspace, and not to a folder nested in that one."""
        root, path = key
        return root in self.roots and not path.startswith(self._inner[root])

    def at_or_below(self, real: str) -> list[str]:
        """Return the workspace folders that have the real path `real`, or are in the directory with this path."""
        return [root for root, real_root in self.roots.items() if _relative(real_root, real) is not None]

    def inner(self, root: str) -> tuple[str, ...]:
        """Return the workspace folders inside the folder `root`, as prefixes of paths relative to it ("pkg/")."""
        return self._inner[root]

    def _inner_prefixes(self, real: str) -> tuple[str, ...]:
        relatives = (_relative(other, real) for other in self.roots.values())
        return tuple(f"{Path(relative).as_posix()}/" for relative in relatives if relative)


def _relative(path: str, directory: str) -> str | None:
    """Return a path relative to a directory, "" for the directory itself, or None for a path outside of it."""
    if not path.startswith(directory):
        return None
    rest = path[len(directory) :]
    if not rest or directory.endswith(os.sep):
        return rest
    return rest.lstrip(os.sep) if rest[0] == os.sep else None
