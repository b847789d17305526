"""GGUF models that are split into shards. llama.cpp gets the path of the first shard, and loads all of them.

The first of four shards is called `NAME-00001-of-00004.gguf`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

_BLOCK = 1 << 20
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)")


def name_without_shard(name: str) -> str:
    """Return a file name without its shard number."""
    return _SHARD.sub("", name)


def is_later_shard(path: Path) -> bool:
    """Return whether `path` is a shard other than the first. llama.cpp finds such a file by the first shard."""
    found = _SHARD.search(path.name)
    return found is not None and found[1] != "00001"


def shards_of(path: Path) -> list[Path]:
    """Return all files of the model that is loaded as `path`, in order, including those that do not exist."""
    found = _SHARD.search(path.name)
    if found is None or found[1] != "00001":
        return [path]
    stem, count = path.name[: found.start()], int(found[2])
    return [path.with_name(f"{stem}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]


def sha256(files: Iterable[Path]) -> str:
    """Return the SHA-256 of the concatenated contents of `files`. Raises `OSError` if a file cannot be read."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()
