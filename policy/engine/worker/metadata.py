"""What a model's metadata and vocabulary say of how to prompt it: its layout, its budgets, names of its tokens.

The metadata are those of the GGUF file, under those of its card where it has one (`policy.models.card`).
"""

from __future__ import annotations

from collections.abc import Mapping

from policy.errors import ModelInvalid
from policy.prompting.prompt import LAYOUTS, ROLES, Budgets, Layout, Role, Vocabulary


def choose_layout(name: str, vocabulary: Vocabulary) -> Layout:
    """The layout called `name`, or the best that the vocabulary allows where `name` is empty.

    Raises `ModelInvalid` for an unknown name and for one that the model has no tokens for.
    """
    if name:
        if name not in LAYOUTS:
            raise ModelInvalid(f"unknown prompt layout {name!r}: choose one of {', '.join(LAYOUTS)}")
        if missing := vocabulary.missing(LAYOUTS[name]):
            raise ModelInvalid(f"this model has no {', '.join(missing)} token: layout {name!r} needs it")
        return LAYOUTS[name]
    for candidate in ("repoformer", "fim-psm-files", "fim-psm"):
        if not vocabulary.missing(LAYOUTS[candidate]):
            return LAYOUTS[candidate]
    return LAYOUTS["prefix-only"]


def budgets_of(metadata: Mapping[str, str]) -> Budgets:
    """The budgets a model was trained with (`repoformer.budget.*`), the paper's where it does not say."""
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
    """Token ids that the metadata name for a role (`repoformer.token.ROLE`), out of those that the model does not use.

    Raises `ModelInvalid` for an id that is outside the model's `n_vocab` tokens.
    """
    ids: dict[Role, int] = {}
    for role in ROLES:
        if text := metadata.get(f"repoformer.token.{role}"):
            if not text.isdigit() or int(text) >= n_vocab:
                raise ModelInvalid(f"the metadata name token {text!r} as {role}, and the model has {n_vocab} tokens: "
                                   "they are of another model")  # fmt: skip
            ids[role] = int(text)
    return ids
