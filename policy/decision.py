"""Retrieve or abstain: from what the engine knows after reading L and R to a `Decision`.

Two gates. Where the model has the token, the gate is P(`<cc>`), the probability that it asks for cross-file context
(paper, section 3.2). Where it has not, the paper's *trial retrieval* stands in: retrieve, and use what was found if
its similarity to the lines at the cursor is high enough. It has to retrieve every time and knows nothing of the
model, but it makes any model selective. A decision says which gate made it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from policy.engine.client import Reading

Policy = Literal["selective", "always", "never"]
Selection = Literal["threshold", "greedy"]
Source = Literal["token", "similarity", "policy"]
TaskKind = Literal["line", "block"]


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to retrieve, and why.

    `p_retrieve` is in [0, 1]: P(`<cc>`) for source "token", the best chunk's similarity for "similarity", 1 or 0 for
    "policy". It is compared with `threshold`, except under greedy selection.
    """

    p_retrieve: float
    threshold: float
    retrieve: bool
    source: Source


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Probabilities over which to retrieve, by kind of task.

    The defaults for the token are the paper's (section 5.1: 0.15 for functions, 0.20 for everything else). Those of
    trial retrieval, on the Jaccard similarity of the best chunk, are where it retrieves for about half of the cursors.
    """

    line: float = 0.20
    block: float = 0.15
    similarity: float = 0.25

    def of(self, kind: TaskKind) -> float:
        """The token's threshold for a completion of `kind`."""
        return self.line if kind == "line" else self.block

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Thresholds:
        """What a model's metadata says (`repoformer.threshold.line`, `.block`), the defaults where it is silent."""
        default = cls()

        def value(name: str, fallback: float) -> float:
            try:
                return float(metadata[f"repoformer.threshold.{name}"])
            except (KeyError, ValueError):
                return fallback

        return cls(value("line", default.line), value("block", default.block), value("similarity", default.similarity))


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a model's P(`<cc>`) means: sigmoid(`slope` · log-odds + `offset`) is the rate at which retrieval helped.

    Fitted on validation repositories after training (`repoformer.calibration.*` in the metadata); without it a
    probability stands as the model says it. Monotone, so it changes no ranking, and greedy selection never sees it.
    """

    slope: float = 1.0
    offset: float = 0.0

    def apply(self, p: float) -> float:
        """The calibrated probability."""
        p = min(max(p, 1e-9), 1 - 1e-9)
        return 1 / (1 + math.exp(-(self.slope * math.log(p / (1 - p)) + self.offset)))

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Calibration:
        """What a model's metadata says, the identity where it is silent or makes no sense."""
        try:
            slope, offset = (float(metadata[f"repoformer.calibration.{name}"]) for name in ("slope", "offset"))
        except (KeyError, ValueError):
            return cls()
        return cls(slope, offset) if slope > 0 else cls()


def by_policy(policy: Policy) -> Decision | None:
    """The decision that a policy makes without asking anybody; None for `selective`."""
    if policy == "selective":
        return None
    return Decision(1.0 if policy == "always" else 0.0, 0.5, policy == "always", "policy")


def by_token(reading: Reading, threshold: float, selection: Selection) -> Decision | None:
    """The model's own decision; None when it has no token for it.

    *Greedy*: `<cc>` is the likeliest next token. *Threshold*: P(`<cc>`) is over `threshold`.
    """
    if reading.p_cc is None:
        return None
    retrieve = reading.cc_is_top if selection == "greedy" else reading.p_cc > threshold
    return Decision(reading.p_cc, threshold, retrieve, "token")


def by_similarity(best: float, threshold: float) -> Decision:
    """Trial retrieval (paper, section 6.1): `best` is the similarity of the best chunk found, 0 for none."""
    return Decision(best, threshold, best > threshold, "similarity")
