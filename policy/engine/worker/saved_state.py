"""Save the KV cache of prompts to disk, so that a file that is opened again needs little reading.

Each file contains one state: llama.cpp's cells of one sequence, with the tokens that they belong to. A state can be
loaded only with the same model file, library, CPU, and settings of the context, so each combination of these (the key)
has its own folder. Each version of the format also has its own folders, because another version of the program may run
at the same time. A file that is damaged or has another key is removed.

The cells contain information about the user's code. So the folders have mode 0700 and the files 0600, and a state that
was not used for 30 days is removed. A state that only another version can read is removed after one day without use.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import struct
import sys
import time
import zlib
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from policy.common_prefix import common_prefix

_MAGIC = b"RFLSTATE"
_VERSION = 3  # increase this number if the format or the evaluation of prompts changes
# Magic, version, key, number of tokens, number of bytes of the state, CRC-32 of the tokens and the state.
_HEADER = struct.Struct("<8sI32sIQI")
_SUFFIX = ".kv"
_PER_SLOT = 2  # files: the prompt at the position where a document opens, and the one where the user worked last
_BLOCK = 1 << 20  # bytes to write between two checks for an interruption
_SECONDS_PER_DAY = 86_400
_MAX_AGE = 30 * _SECONDS_PER_DAY
_MAX_UNREADABLE_AGE = _SECONDS_PER_DAY  # for states of other versions; a version that runs now uses its states
_MAX_TEMPORARY_AGE = 3_600  # seconds; an older temporary file is left over from a process that was killed


@dataclass(frozen=True, slots=True)
class SavedState:
    """A state that was loaded: the first tokens of a prompt, and the cells of these tokens in llama.cpp's format."""

    tokens: list[int]
    data: memoryview
    file: Path


class SavedStates:
    """The states of one key, in a folder that only this user may enter.

    `key` identifies everything on which the cells depend. `max_bytes` limits the size of the states of all keys; the
    ones that were not used for the longest time are removed first. `log` receives at most one message about a damaged
    file, and one about a failure to save.
    """

    def __init__(self, key: str, max_bytes: int, log: Callable[[str], None], folder: Path | None = None) -> None:
        self._folder = folder or Path(platformdirs.user_cache_dir("repoformer-lsp", appauthor=False), "states")
        self._key = hashlib.sha256(f"{_VERSION} {key}".encode()).digest()
        self._own = self._folder / self._key.hex()[:16]
        self._max_bytes = max_bytes
        self._log = log
        self._logged = False
        self._usable = True  # False after an error in saving, so that the error does not repeat
        self._tokens: dict[Path, list[int]] | None = None  # the tokens of each file, read at the first use

    def find(self, tokens: Sequence[int]) -> tuple[Path | None, int]:
        """Return the file whose state has the longest common prefix with `tokens`, and the length of that prefix.

        If no state has a common prefix with `tokens`, return None and 0.
        """
        best, longest = None, 0
        wanted = list(tokens)
        for file, saved in self._index().items():
            if (length := common_prefix(saved, wanted)) > longest:
                best, longest = file, length
        return best, longest

    def load(self, file: Path) -> SavedState | None:
        """Read a file that `find` returned, and mark it as used. Return None, and remove the file, if it is damaged."""
        try:
            content = file.read_bytes()
            os.utime(file)
        except OSError:  # another process may have removed it
            self._index().pop(file, None)
            return None
        count, body = self._parsed(content[: _HEADER.size], len(content)), memoryview(content)[_HEADER.size :]
        if count is None or zlib.crc32(body) != _HEADER.unpack_from(content)[-1]:
            self.discard(file)
            return None
        return SavedState(list(array("i", body[: 4 * count].tobytes())), body[4 * count :], file)

    def save(self, slot: str, tokens: Sequence[int], data: memoryview, interrupted: Callable[[], bool]) -> bool:
        """Save the state `data` of `tokens`, which are the beginning of the prompt in `slot`.

        Return False if it is not saved, because `interrupted` returned True, the state exceeds the limit, or the disk
        has an error, such as too little space. After an error, later calls do nothing.
        """
        body = array("i", tokens).tobytes()
        checksum = zlib.crc32(data, zlib.crc32(body))
        header = _HEADER.pack(_MAGIC, _VERSION, self._key, len(tokens), len(data), checksum)
        size = len(header) + len(body) + len(data)
        if not self._usable or size > self._max_bytes:
            return False
        name = f"{_short_hash(slot.encode())}-{_short_hash(body)}"
        temporary = self._own / f"{name}.{os.getpid()}.new"
        try:
            self._make_folders()
            self._remove_old(self._max_bytes - size)
            finished = self._write(temporary, (header, body, data), interrupted)
            if finished:
                temporary.replace(self._own / f"{name}{_SUFFIX}")
            else:
                temporary.unlink()
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            self._usable = False
            self._log(f"cannot save evaluated prompts in {self._own} ({error.strerror}); continuing without saving")
            return False
        if finished:
            self._index()[self._own / f"{name}{_SUFFIX}"] = list(tokens)
            self._limit(name.partition("-")[0])
        return finished

    @property
    def usable(self) -> bool:
        """Whether states can be saved, which is false after an error."""
        return self._usable

    def discard(self, file: Path) -> None:
        """Remove a file that cannot be loaded."""
        self._remove(file)
        if not self._logged:
            self._logged = True
            self._log(f"removed the saved prompt {file}, because it is damaged or from another program")

    def _write(self, file: Path, parts: Sequence[bytes | memoryview], interrupted: Callable[[], bool]) -> bool:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as opened:
            for part in parts:
                for start in range(0, len(part), _BLOCK):
                    if interrupted():
                        return False
                    block = memoryview(part)[start : start + _BLOCK]
                    while block:
                        block = block[opened.write(block) :]
        return True

    def _make_folders(self) -> None:
        """Create the folders for this user only. Raises `OSError` if another user owns them."""
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        for folder in (self._folder, self._own):
            folder.mkdir(mode=0o700, exist_ok=True)
            if sys.platform != "win32":
                found = folder.lstat()
                if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                    raise PermissionError(0, "the folder belongs to another user")
                if found.st_mode & 0o077:
                    folder.chmod(0o700)

    def _index(self) -> dict[Path, list[int]]:
        """Return the tokens of each state of this key. Remove files whose header is invalid."""
        if self._tokens is None:
            self._tokens = {}
            with contextlib.suppress(OSError):
                if self._trusted():
                    for file in sorted(self._own.glob(f"*{_SUFFIX}")):
                        self._read_header(file)
        return self._tokens

    def _trusted(self) -> bool:
        """Return whether only this user can have written the files."""
        if sys.platform == "win32":
            return self._own.is_dir()
        return all(
            stat.S_ISDIR((found := folder.lstat()).st_mode)
            and found.st_uid == os.getuid()
            and not found.st_mode & 0o022
            for folder in (self._folder, self._own)
        )

    def _read_header(self, file: Path) -> None:
        assert self._tokens is not None
        with contextlib.suppress(OSError):
            with file.open("rb") as opened:
                count = self._parsed(opened.read(_HEADER.size), os.fstat(opened.fileno()).st_size)
                if count is not None:
                    self._tokens[file] = list(array("i", opened.read(4 * count)))
            if count is None:
                self.discard(file)

    def _parsed(self, header: bytes, size: int) -> int | None:
        """Return the number of tokens of a file with this header and size in bytes, or None if it is invalid."""
        if len(header) < _HEADER.size:
            return None
        magic, version, key, count, length, _checksum = _HEADER.unpack(header)
        if (magic, version, key) != (_MAGIC, _VERSION, self._key) or size != _HEADER.size + 4 * count + length:
            return None
        return int(count)

    def _limit(self, slot: str) -> None:
        """Keep only the `_PER_SLOT` files of a slot that were used last."""
        for file in sorted(self._own.glob(f"{slot}-*{_SUFFIX}"), key=_used_at, reverse=True)[_PER_SLOT:]:
            self._remove(file)

    def _remove_old(self, max_bytes: int) -> None:
        """Remove old states of all keys, then the least recently used ones until the rest fits in `max_bytes`."""
        now, total, found = time.time(), 0, []
        for file in self._folder.glob("*/*"):
            with contextlib.suppress(OSError):  # another process may have removed it
                status = file.stat()
                found.append((status.st_mtime, status.st_size, file))
        for used_at, size, file in sorted(found, reverse=True):
            if now - used_at > _max_age(file) or total + size > max_bytes:
                self._remove(file)
            else:
                total += size
        for folder in self._folder.glob("*"):
            if folder != self._own:
                with contextlib.suppress(OSError):  # raised if it contains a file
                    folder.rmdir()

    def _remove(self, file: Path) -> None:
        self._index().pop(file, None)
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def _max_age(file: Path) -> float:
    """Return the number of seconds without use after which a file is removed."""
    if file.suffix != _SUFFIX:
        return _MAX_TEMPORARY_AGE
    readable = struct.pack("<8sI", _MAGIC, _VERSION)
    with contextlib.suppress(OSError), file.open("rb") as opened:
        if opened.read(len(readable)) != readable:
            return _MAX_UNREADABLE_AGE
    return _MAX_AGE


def _used_at(file: Path) -> float:
    """Return when a file was written or loaded, in seconds since the epoch, or 0 if it no longer exists."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _short_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
