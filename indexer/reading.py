"""From a file's bytes to text worth indexing, or the reason why it is none.

A file that is not UTF-8 is read as what its byte order mark says, else as Latin-1: old source is worth having, and a
wrong accent in a comment costs nothing. What holds a NUL or mostly control characters is binary.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path

from indexer.locations import Locations
from indexer.machine_written import is_minified, says_generated
from indexer.rules import Reason, Rules
from indexer.settings import IndexSettings

_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f\v\x1b\x08"))
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read(file: Path, max_bytes: int) -> bytes | Reason:
    """Read a file's bytes, at most `max_bytes`: it may have grown since it was listed."""
    try:
        with file.open("rb") as stream:
            data = stream.read(max_bytes + 1)
    except FileNotFoundError:
        return Reason("missing", f"{file} vanished")
    except OSError as error:
        return Reason("unreadable", f"{file}: {error.strerror}")
    if len(data) > max_bytes:
        return Reason("size", f"more than max_file_bytes = {max_bytes}")
    return data


def decode(data: bytes) -> str | Reason:
    """Turn a file's bytes into text that is worth indexing."""
    text = text_of(data)
    return text if isinstance(text, Reason) else check_text(text)


def text_of(data: bytes) -> str | Reason:
    """Turn a file's bytes into text, whatever it is worth; a reason where they are none."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "")
    if encoding:
        return data.decode(encoding, "replace")
    if b"\0" in data:
        return Reason("binary", "it holds a NUL byte")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        if len(data) - len(data.translate(None, _CONTROL)) > len(data) // 50:
            return Reason("binary", "it holds control characters and is not UTF-8")
        return data.decode("latin-1")


def check_text(text: str) -> str | Reason:
    """Return the text, or why it is of no use: a tool wrote it, not a person."""
    if how := is_minified(text):
        return Reason("minified", how)
    if said := says_generated(text):
        return Reason("generated", f"it says `{said}`")
    return text


def why_not(file: Path, roots: Sequence[Path], settings: IndexSettings) -> Reason | None:
    """Return why a file (absolute path) is left out of the index of these folders; None if it belongs in."""
    locations = Locations(str(root) for root in roots)
    key = locations.key(locations.real_entry(str(file)))
    if key is None:
        return Reason("outside", f"{file} lies in no folder of the workspace")
    root, path = key
    reason = Rules(Path(root), settings).why_not(path)
    if reason is not None:
        return reason
    data = read(file, settings.max_file_bytes)
    text = data if isinstance(data, Reason) else decode(data)
    return text if isinstance(text, Reason) else None
