"""Read from a model's metadata and vocabulary how to prompt it: its layout, its budgets, the names of its tokens.

The metadata is that of the GGUF file and of its card, if it has one (`policy.models.card`). The card's values take
precedence.
"""

from __future__ import annotations

from collections.abc import Mapping

from policy.errors import ModelInvalid
from policy.prompting.prompt import LAYOUTS, ROLES, Budgets, Layout, Role, Vocabulary


def choose_layout(name: str, vocabulary: Vocabulary) -> Layout:
    """Return the layout called `name`, or, if `name` is empty, the best one for the vocabulary.

    Raises `ModelInvalid` for an unknown name and for a layout for which the model lacks tokens.
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


def budgets_of(metadata: Mapping[str, str]) -> Budgets:
    """Return the budgets that a model was trained with (`repoformer.budget.*`), by default the paper's."""
    default = Budgets()

    def value(name: str, fallback: int) -> int:
        text = metadata.get(f"repoformer.budget.{name}", "")
        return int(text) if text.isdigit() else fallback

    return Budgets(
        value("left", default.left),
        value("right", default.right),
        value("context", default.context),
        value("step_lines", default.step_lines),
    )


def named_tokens(metadata: Mapping[str, str], n_vocab: int) -> dict[Role, int]:
    """Return the token ids that the metadata names for a role (`repoformer.token.ROLE`).

    These are tokens that the model does not use otherwise. Raises `ModelInvalid` for an id outside the model's
    `n_vocab` tokens.
    """
    ids: dict[Role, int] = {}
    for role in ROLES:
        if text := metadata.get(f"repoformer.token.{role}"):
            if not text.isdigit() or int(text) >= n_vocab:
                raise ModelInvalid(f"The metadata names token {text!r} as {role}, but the model has {n_vocab} tokens. "
                                   "The metadata is that of another model")  # fmt: skip
            ids[role] = int(text)
    return ids
