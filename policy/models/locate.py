"""Which model file: the one that was asked for, else a pinned one that was pulled, else the one that ships.

Nothing is downloaded unless it is asked for: what is in the cache was put there by `repoformer-lsp model pull` or
`model import`. A pinned model (`card.py`) is known to complete better than the one that ships, so it is preferred. Any
other file in the cache comes last, an imported one before a pulled one: usually that is a generator, for the setting
`generatorModel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import platformdirs

from policy.errors import ModelMissing
from policy.models.card import all_cards, of_file
from policy.models.shards import is_later_shard, name_without_shard

Source = Literal["setting", "pulled", "shipped", "cache"]

REASONS: Mapping[Source, str] = {
    "setting": "the setting `model` names it",
    "pulled": "it was pulled, and completes better than the one that ships",
    "shipped": "it ships with the package, and no better one was pulled (`repoformer-lsp model pull`)",
    "cache": "no other model is there",
}

BASE_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"  # what our own model is trained from (`policy.training.wheel`)

# What a processor reads in about a second: the paper's budgets are for a GPU, and this file names none of its own.
BASE_BUDGETS: Mapping[str, int] = MappingProxyType({"left": 256, "context": 192})


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file, and by which rule it was found."""

    path: Path
    source: Source


def name_of(path: Path) -> str:
    """What a model is called: its file's name, without what says that it is the first part of several."""
    return Path(name_without_shard(path.name)).stem


def cache_dir() -> Path:
    """Where models are kept for this user; it may not exist yet."""
    return Path(platformdirs.user_cache_dir("repoformer-lsp", appauthor=False), "models")


def shipped() -> list[ModelFile]:
    """Return the models in the package: one, or none in a checkout without weights."""
    paths = sorted(Path(__file__).parent.with_name("model").glob("*.gguf"))
    return [ModelFile(path, "shipped") for path in paths if not is_later_shard(path)]


def installed() -> list[ModelFile]:
    """Models that are there without being named, in the order in which they are preferred."""
    folder = cache_dir()
    pulled = [path for path in (folder / card.file for card in reversed(all_cards())) if of_file(path)]
    cached = [path for path in (*sorted(folder.glob("*.gguf")), *sorted(folder.glob("*/*.gguf"))) if path not in pulled]
    found = [ModelFile(path, "pulled") for path in pulled] + shipped()
    found += [ModelFile(path, "cache") for path in cached if not is_later_shard(path)]
    return found


def resolve(setting: str | Path = "") -> ModelFile:
    """The model to use; `setting` is a file that a person asked for, or empty, or "auto".

    Raises `ModelMissing` where there is none. The file's content is not looked at (see `policy.models.gguf`).
    """
    if str(setting) not in {"", "auto"}:
        path = Path(setting).expanduser().absolute()
        if not path.is_file():
            raise ModelMissing(
                f"There is no model at {path}. Correct the setting `model` (or --model), or leave it empty to use "
                "the default model."
            )
        return ModelFile(path, "setting")
    for model in installed():
        return model
    raise ModelMissing(
        f"No model is installed (looked in the package and in {cache_dir()}). `repoformer-lsp model pull` says "
        "which can be had; or set `model` (--model) to a GGUF file."
    )


def recommended_budgets(model: ModelFile) -> Mapping[str, int]:
    """Token budgets for a model whose metadata cannot have them, by name; empty for all others."""
    return BASE_BUDGETS if model.path.name == BASE_FILE else MappingProxyType({})
