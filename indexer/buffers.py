"""The open documents. The text of an open document takes precedence over the content of its file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Buffer:
    """The text of an open document, and the language id that the client sent."""

    text: str
    lsp_id: str


class Buffers:
    """The open documents, by the real paths of their files.

    An editor may have one file open under two names, for instance through a symbolic link. Then the text that was set
    last is used. When that document is closed, the text of the other document is used again.
    """

    def __init__(self) -> None:
        self._real_of: dict[str, str] = {}
        self._by_file: dict[str, dict[str, Buffer]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_file)

    def get(self, real: str) -> Buffer | None:
        """Return the open text of a file, or None if the file is not open."""
        named = self._by_file.get(real)
        return None if named is None else next(reversed(named.values()))

    def put(self, name: str, real: str, buffer: Buffer) -> set[str]:
        """Set the text of the document `name`, whose file has the real path `real`.

        Return the real paths of the files whose text changes.
        """
        changed = self.remove(name) if self._real_of.get(name, real) != real else set()
        self._real_of[name] = real
        named = self._by_file.setdefault(real, {})
        named.pop(name, None)
        named[name] = buffer
        return changed | {real}

    def remove(self, name: str) -> set[str]:
        """Remove the document `name`. Return the real paths of the files whose text changes."""
        real = self._real_of.pop(name, None)
        if real is None:
            return set()
        named = self._by_file[real]
        del named[name]
        if not named:
            del self._by_file[real]
        return {real}
