"""Assemble a pinned model file from pieces. The SHA-256 of each piece is checked when it is copied into the file.

Which pieces are already in the file is not recorded. After an interruption of any kind, all pieces in the file are
hashed again (a second for 500 MB). The file gets its final name only when its SHA-256 is the pinned one, so `locate.py`
never finds an incomplete file.
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
    """Return whether `path` has the SHA-256 of `card`. Raises `OSError` if the file cannot be read."""
    return path.is_file() and path.stat().st_size == card.size and sha256([path]) == card.sha256


class Assembly:
    """A file that is assembled from pieces under the name `NAME.gguf.part`. It is open inside the `with` block.

    The downloads of single pieces are in the same folder.
    """

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
        """Continue with the existing file `damaged`, whose hash is wrong, because most of its pieces may be right."""
        self._file.close()
        damaged.replace(self.path)
        self._file = self.path.open("r+b")
        self._shorten()

    def _shorten(self) -> None:
        if self.path.stat().st_size > self.card.size:
            self._file.truncate(self.card.size)

    def missing(self) -> list[Piece]:
        """Return the pieces that are absent from the file or have a wrong hash."""
        return [piece for piece in self.card.pieces if self._hash_of(piece) != piece.sha256]

    def _hash_of(self, piece: Piece) -> str:
        digest, left = hashlib.sha256(), piece.size
        self._file.seek(piece.offset)
        while left and (block := self._file.read(min(left, _BLOCK))):
            digest.update(block)
            left -= len(block)
        return digest.hexdigest()

    def download_of(self, piece: Piece, source: SourceName) -> Path:
        """Return the path of the file into which `piece` is downloaded from `source`.

        The name contains the hash, because another version of the model has another piece with the same number.
        """
        return self.folder / f"{self.card.file}.{piece.number:02}.{piece.sha256[:8]}.{source}.part"

    def put(self, piece: Piece, download: Path, member: str) -> str:
        """Copy a piece from its download to its place in the file. Return the problem with the download, or "".

        If `member` is not empty, the download is a zip archive, and the piece is the file in this archive whose name
        ends in `member`.
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
            with self._writing:  # the threads share one file position
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
        """Check the whole file, rename it to `target`, and delete the downloads.

        Raises `ModelInvalid` if the file has a wrong hash.
        """
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if not is_whole(self.path, self.card):
            raise ModelInvalid(
                f"{self.card.file} does not have the SHA-256 {self.card.sha256}, although its pieces are right. The "
                f"disk or the memory of this machine may be faulty. Delete {self.path} and try again."
            )
        self.path.replace(target)
        for left in self.folder.glob(f"{self.card.file}.*.part"):
            left.unlink(missing_ok=True)


def _content(file: Path, member: str) -> Iterator[bytes]:
    """Yield the content of a download in blocks.

    If `member` is not empty, `file` is a zip archive, and the content is that of the file in it whose name ends in
    `member`. Raises `LookupError` if the archive does not contain exactly one such file.
    """
    if member:
        with zipfile.ZipFile(file) as archive:
            found = [name for name in archive.namelist() if name.endswith(member)]
            if len(found) != 1:
                raise LookupError(f"it contains no {member}")
            with archive.open(found[0]) as source:
                while block := source.read(_BLOCK):
                    yield block
    else:
        with file.open("rb") as plain:
            while block := plain.read(_BLOCK):
                yield block
