"""Turn a file's bytes into text, or into the reason why the file is not worth indexing.

The encoding of a file is the one of its byte order mark. Without such a mark, it is UTF-8 or, if the file is not UTF-8,
Latin-1: old source is worth indexing, and a wrong accent in a comment does no harm. A file without a mark is binary if
it contains a NUL, or if it is not UTF-8 and contains many control characters.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path

from indexer.locations import Locations
from indexer.machine_written import is_minified, says_generated
from indexer.rules import Reason, Rules, too_large
from indexer.settings import IndexSettings

_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f\v\x1b\x08"))
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # comes before UTF-16, because this mark begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read(file: Path, max_bytes: int) -> bytes | Reason:
    """Read a file's bytes, or return the reason why it cannot be read.

    A file larger than `max_bytes` gives a reason, even if it was smaller when it was listed.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(max_bytes + 1)
    except FileNotFoundError:
        return Reason("missing", f"{file} no longer exists")
    except OSError as error:
        return Reason("unreadable", f"{file}: {error.strerror}")
    if len(data) > max_bytes:
        return Reason("size", too_large(f"more than {max_bytes:,} bytes", max_bytes))
    return data


def decode(data: bytes) -> str | Reason:
    """Decode a file's bytes to text with LF line ends, or return the reason why the text is not worth indexing."""
    text = text_of(data)
    if isinstance(text, Reason):
        return text
    return check_text(text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text)


def text_of(data: bytes) -> str | Reason:
    """Decode a file's bytes to text, or return the reason why they are not text."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "")
    if encoding:
        return data.decode(encoding, "replace")
    if b"\0" in data:
        return Reason("binary", "it contains a NUL byte")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        if len(data) - len(data.translate(None, _CONTROL)) > len(data) // 50:
            return Reason("binary", "it contains control characters and is not UTF-8")
        return data.decode("latin-1")


def check_text(text: str) -> str | Reason:
    """Return the text, or the reason why it is not worth indexing: it is minified, only data, or generated."""
    if how := is_minified(text):
        return Reason("minified", how)
    if notice := says_generated(text):
        return Reason("generated", f"it says `{notice}`")
    return text


def why_not(file: Path, roots: Sequence[Path], settings: IndexSettings) -> Reason | None:
    """Return why a file (absolute path) is left out of the index of these folders.

    Return None if the file belongs in the index.
    """
    locations = Locations(str(root) for root in roots)
    key = locations.key(locations.real_entry(str(file)))
    if key is None:
        return Reason("outside", f"{file} is in no workspace folder")
    root, path = key
    reason = Rules(Path(root), settings).why_not(path)
    if reason is not None:
        return reason
    data = read(file, settings.max_file_bytes)
    text = data if isinstance(data, Reason) else decode(data)
    return text if isinstance(text, Reason) else None
