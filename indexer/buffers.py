"""The open documents, whose text counts instead of that of their files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Buffer:
    """An open document's text, and the language id that the client gave it."""

    text: str
    lsp_id: str


class Buffers:
    """The open documents by the real paths of their files.

    An editor may have one file open under two names, one of them through a symbolic link. The text that was set last
    counts, and after one of the two is closed the other's text does.
    """

    def __init__(self) -> None:
        self._real_of: dict[str, str] = {}
        self._by_file: dict[str, dict[str, Buffer]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_file)

    def get(self, real: str) -> Buffer | None:
        """Return the text that counts for a file; None if it is not open."""
        named = self._by_file.get(real)
        return None if named is None else next(reversed(named.values()))

    def put(self, name: str, real: str, buffer: Buffer) -> set[str]:
        """Take in a document's text. Returns the files, by their real paths, whose text is another one now."""
        changed = self.remove(name) if self._real_of.get(name, real) != real else set()
        self._real_of[name] = real
        named = self._by_file.setdefault(real, {})
        named.pop(name, None)
        named[name] = buffer
        return changed | {real}

    def remove(self, name: str) -> set[str]:
        """Forget a document. Returns the files, by their real paths, whose text is another one now."""
        real = self._real_of.pop(name, None)
        if real is None:
            return set()
        named = self._by_file[real]
        del named[name]
        if not named:
            del self._by_file[real]
        return {real}
