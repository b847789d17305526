"""Read from a model's metadata and vocabulary how to prompt it: its layout and its markers.

The metadata is that of the GGUF file and of the model's card, if it has one (`policy.models.card`). The card's values
take precedence.
"""

from __future__ import annotations

from collections.abc import Mapping

from policy.errors import ModelInvalid
from policy.prompting.prompt import LAYOUTS, ROLES, Layout, Role, Vocabulary


def choose_layout(name: str, vocabulary: Vocabulary) -> Layout:
    """Return the layout called `name`, or, if `name` is empty, the best layout for the vocabulary.

    Raises `ModelInvalid` if no layout has this name, or if the model lacks a token that the layout needs.
    """
    if name:
        if name not in LAYOUTS:
            raise ModelInvalid(f"Unknown prompt layout {name!r}. Choose one of {', '.join(LAYOUTS)}")
        if missing := vocabulary.missing(LAYOUTS[name]):
            raise ModelInvalid(f"Layout {name!r} needs tokens that this model lacks: {', '.join(missing)}")
        return LAYOUTS[name]
    for candidate in ("repoformer", "fim-spm"):
        if not vocabulary.missing(LAYOUTS[candidate]):
            return LAYOUTS[candidate]
    return LAYOUTS["prefix-only"]


def named_tokens(metadata: Mapping[str, str], n_vocab: int) -> dict[Role, int]:
    """Return the token id of each role that the metadata names (`repoformer.token.ROLE`).

    Such a model uses tokens of its vocabulary that have no other purpose as markers. Raises `ModelInvalid` for an id
    that is not less than `n_vocab`, the size of the vocabulary.
    """
    ids: dict[Role, int] = {}
    for role in ROLES:
        if text := metadata.get(f"repoformer.token.{role}"):
            if not text.isdigit() or int(text) >= n_vocab:
                raise ModelInvalid(f"The metadata names token {text!r} as {role}, but the model has {n_vocab} tokens. "
                                   "The metadata is that of another model")  # fmt: skip
            ids[role] = int(text)
    return ids
