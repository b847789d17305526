"""Find the model file: the one in the setting, else a pinned model that was downloaded, else the model in the package.

Nothing is downloaded unless the user asks for it: the models in the user's cache come from `repoformer-lsp model pull`
or `model import`. A pinned model (`card.py`) is known to complete better than the model in the package, so it is
preferred. All other files in the cache come last, because they are usually generators for the setting `generatorModel`.
Of these other files, imported ones come before downloaded ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import platformdirs

from policy.errors import ModelMissing
from policy.models.card import all_cards, metadata_of, of_file
from policy.models.gguf import Header
from policy.models.shards import is_later_shard, name_without_shard
from policy.prompting.prompt import Budgets

Source = Literal["setting", "pulled", "shipped", "cache"]

# Each text continues the sentence "The model is used, because".
REASONS: Mapping[Source, str] = {
    "setting": "the setting `model` names it",
    "pulled": "it was downloaded, and completes better than the model in the package",
    "shipped": "it is part of the package, and no better model was downloaded (`repoformer-lsp model pull`)",
    "cache": "no pinned model and no model in the package is installed",
}

BASE_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"  # the base of our own model (`policy.training.wheel`)

# `BASE_FILE` has no budgets in its metadata, and the paper's budgets are for a GPU. A CPU evaluates about as many
# tokens in a second as the budgets below have together.
BASE_BUDGETS: Mapping[str, int] = MappingProxyType({"left": 256, "context": 192})


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file, and where it was found (see `REASONS`)."""

    path: Path
    source: Source


def name_of(path: Path) -> str:
    """Return the name of a model: its file name without the ending and without the number of the shard."""
    return Path(name_without_shard(path.name)).stem


def cache_dir() -> Path:
    """Return the folder of this user's models, which may not exist yet."""
    return Path(platformdirs.user_cache_dir("repoformer-lsp", appauthor=False), "models")


def shipped() -> list[ModelFile]:
    """Return the models in the package: one, or none in a checkout without weights."""
    paths = sorted(Path(__file__).parent.with_name("model").glob("*.gguf"))
    return [ModelFile(path, "shipped") for path in paths if not is_later_shard(path)]


def installed() -> list[ModelFile]:
    """Return the models that can be found without a setting, the preferred one first."""
    folder = cache_dir()
    pulled = [path for path in (folder / card.file for card in reversed(all_cards())) if of_file(path)]
    cached = [path for path in (*sorted(folder.glob("*.gguf")), *sorted(folder.glob("*/*.gguf"))) if path not in pulled]
    found = [ModelFile(path, "pulled") for path in pulled] + shipped()
    found += [ModelFile(path, "cache") for path in cached if not is_later_shard(path)]
    return found


def resolve(setting: str | Path = "") -> ModelFile:
    """Return the model to use. `setting` is a file, the name of a pinned model, empty, or "auto".

    Raises `ModelMissing` if there is no model. The content of the file is not checked (see `policy.models.gguf`).
    """
    if str(setting) not in {"", "auto"}:
        path = Path(setting).expanduser().absolute()
        if not path.is_file() and (card := next((card for card in all_cards() if card.name == str(setting)), None)):
            path = cache_dir() / card.file
            if not of_file(path):
                raise ModelMissing(f"{card.name} is not downloaded. Run `repoformer-lsp model pull {card.name}`.")
        if not path.is_file():
            raise ModelMissing(
                f"There is no model at {path}. Correct the setting `model` (or --model), or leave it empty to use "
                "the default model."
            )
        return ModelFile(path, "setting")
    for model in installed():
        return model
    raise ModelMissing(
        f"No model is installed, neither in the package nor in {cache_dir()}. Run `repoformer-lsp model pull` for a "
        "list of models, or set `model` (--model) to a GGUF file."
    )


def budgets_of(model: Path, header: Header) -> Budgets:
    """Return the token budgets in the metadata of the model file `model`, which has the header `header`."""
    budgets = Budgets.from_metadata({**header.metadata, **metadata_of(model)})
    return replace(budgets, **BASE_BUDGETS) if model.name == BASE_FILE else budgets
