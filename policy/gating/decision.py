"""Make a `Decision`: retrieve or abstain, from what is known after reading L and R.

For a model with the token `<cc>`, the decision depends on P(`<cc>`), the probability that the model asks for cross-file
context (paper, section 3.2). Greedy selection retrieves if `<cc>` is the most probable token. Otherwise a gate
(`policy.gating.gate`) turns P(`<cc>`) into a probability, which is compared with a threshold.

For other models, the paper's *trial retrieval* decides: search, and use the chunks if their similarity to the lines
before the cursor is above a threshold. It works with any model, because it ignores the model. A decision records how it
was made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from policy.gating.gate import Gate, GateInputs

Policy = Literal["selective", "always", "never"]
SelectionRule = Literal["threshold", "token", "greedy"]
DecisionSource = Literal["evidence", "hybrid", "token", "similarity", "policy"]

# Threshold of trial retrieval for the Jaccard similarity of the best chunk. About half of the cursors are above it.
SIMILARITY = 0.25


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to retrieve, and how this was decided.

    `p_retrieve`, in [0, 1], is the gate's probability if `source` is "evidence", "hybrid" or "token", the best chunk's
    similarity for "similarity", and 1 or 0 for "policy". Except under greedy selection, it is compared with
    `threshold`. `held` says that the decision was made earlier on the same line
    (`policy.completion.pinned.LineDecisions`).
    """

    p_retrieve: float
    threshold: float
    retrieve: bool
    source: DecisionSource
    held: bool = False


def by_policy(policy: Policy) -> Decision | None:
    """Return the decision of a policy that asks neither model nor index, or None for `selective`."""
    if policy == "selective":
        return None
    return Decision(1.0 if policy == "always" else 0.0, 0.5, policy == "always", "policy")


def by_gate(gate: Gate, known: GateInputs, threshold: float | None = None) -> Decision | None:
    """Retrieve if the gate's probability is above `threshold` (None: the gate's own threshold).

    Return None if a value that the gate needs is unknown.
    """
    p = gate.probability(known)
    if p is None:
        return None
    limit = gate.threshold(known.kind) if threshold is None else threshold
    return Decision(p, limit, p > limit, gate.name)


def by_likeliest(p_cc: float, *, cc_is_top: bool) -> Decision:
    """Decide by greedy selection: retrieve if no token is more probable than `<cc>`."""
    return Decision(p_cc, 0.5, cc_is_top, "token")


def by_similarity(best: float, threshold: float = SIMILARITY) -> Decision:
    """Decide by trial retrieval (paper, section 6.1).

    `best` is the similarity of the best chunk, or 0 if there is none.
    """
    return Decision(best, threshold, best > threshold, "similarity")
