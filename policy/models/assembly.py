"""A pinned file that is put together out of pieces, each checked by its SHA-256 on the way to its place.

There is no journal of what is there: after an interruption, of whatever kind, the places of all pieces are hashed
again (a second for 500 MB). The file gets its name when all of it has the pinned SHA-256, so no half file is ever
found by `locate.py`.
"""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from policy.errors import ModelInvalid
from policy.models.card import Card, Piece
from policy.models.shards import sha256
from policy.models.sources import SourceName

_BLOCK = 1 << 20


def is_whole(path: Path, card: Card) -> bool:
    """Whether `path` is the file of `card`, by its SHA-256. Raises `OSError`."""
    return path.is_file() and path.stat().st_size == card.size and sha256([path]) == card.sha256


class Assembly:
    """A file that is put together out of pieces, `NAME.gguf.part`, and the downloads of single pieces beside it."""

    def __init__(self, card: Card, folder: Path) -> None:
        self.card = card
        self.folder = folder
        self.path = folder / f"{card.file}.part"
        self._writing = threading.Lock()

    def __enter__(self) -> Assembly:
        self.path.touch()
        self._file: BinaryIO = self.path.open("r+b")
        self._shorten()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._file.close()

    def adopt(self, damaged: Path) -> None:
        """Go on from a whole file with a wrong hash."""
        self._file.close()
        damaged.replace(self.path)
        self._file = self.path.open("r+b")
        self._shorten()

    def _shorten(self) -> None:
        if self.path.stat().st_size > self.card.size:
            self._file.truncate(self.card.size)

    def missing(self) -> list[Piece]:
        """Pieces that are not there yet, or not right."""
        return [piece for piece in self.card.pieces if self._hash_of(piece) != piece.sha256]

    def _hash_of(self, piece: Piece) -> str:
        digest, left = hashlib.sha256(), piece.size
        self._file.seek(piece.offset)
        while left and (block := self._file.read(min(left, _BLOCK))):
            digest.update(block)
            left -= len(block)
        return digest.hexdigest()

    def download_of(self, piece: Piece, source: SourceName) -> Path:
        """The file that a piece is downloaded into. The hash in its name tells it from one of another version."""
        return self.folder / f"{self.card.file}.{piece.number:02}.{piece.sha256[:8]}.{source}.part"

    def put(self, piece: Piece, download: Path, member: str) -> str:
        """Copy a piece out of a download to its place; what is wrong with it, or "" where nothing is.

        `member`, unless empty, says that the download is an archive, and how the name of the piece in it ends.
        """
        try:
            return self._put(piece, _content(download, member))
        except (zipfile.BadZipFile, zlib.error, EOFError, LookupError, NotImplementedError) as error:
            return f"is damaged ({error})"

    def _put(self, piece: Piece, blocks: Iterator[bytes]) -> str:
        digest, at = hashlib.sha256(), 0
        for block in blocks:
            if at + len(block) > piece.size:
                return f"has more than {piece.size:,} bytes"
            digest.update(block)
            with self._writing:  # one file position for all threads
                self._file.seek(piece.offset + at)
                self._file.write(block)
            at += len(block)
        with self._writing:
            self._file.flush()
        if at != piece.size:
            return f"has {at:,} of {piece.size:,} bytes"
        if digest.hexdigest() != piece.sha256:
            return f"has the SHA-256 {digest.hexdigest()}, expected {piece.sha256}"
        return ""

    def finish(self, target: Path) -> None:
        """Give the file its name, once all of it is right; delete what is left of downloads."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if not is_whole(self.path, self.card):
            raise ModelInvalid(
                f"{self.card.file} has another SHA-256 than {self.card.sha256}, though its pieces are right: the disk "
                f"or the memory of this machine may be faulty. Delete {self.path} and try again."
            )
        self.path.replace(target)
        for left in self.folder.glob(f"{self.card.file}.*.part"):
            left.unlink(missing_ok=True)


def _content(file: Path, member: str) -> Iterator[bytes]:
    """What a download holds: the bytes of a file, or of one member of an archive, block by block."""
    if member:
        with zipfile.ZipFile(file) as archive:
            found = [name for name in archive.namelist() if name.endswith(member)]
            if len(found) != 1:
                raise LookupError(f"it holds no {member}")
            with archive.open(found[0]) as source:
                while block := source.read(_BLOCK):
                    yield block
    else:
        with file.open("rb") as plain:
            while block := plain.read(_BLOCK):
                yield block
