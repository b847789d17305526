"""Models in parts: `NAME-00001-of-00004.gguf` is the first of four files, and llama.cpp loads all of them by it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

_BLOCK = 1 << 20
_PART = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)")


def whole_name(name: str) -> str:
    """The name of a model's file without what says which part of it that is."""
    return _PART.sub("", name)


def is_later_part(path: Path) -> bool:
    """Whether `path` is a part that is loaded by the name of another, the first."""
    found = _PART.search(path.name)
    return found is not None and found[1] != "00001"


def parts_of(path: Path) -> list[Path]:
    """All files of the model that is loaded by `path`, in order, whether they exist or not."""
    found = _PART.search(path.name)
    if found is None or found[1] != "00001":
        return [path]
    stem, count = path.name[: found.start()], int(found[2])
    return [path.with_name(f"{stem}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]


def sha256(files: Iterable[Path]) -> str:
    """SHA-256 of the contents of some files, one after the other. Raises `OSError` where one cannot be read."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()
