"""Retrieve or abstain: from what is known after reading L and R to a `Decision`.

Where the model has the token, what decides is P(`<cc>`), the probability that it asks for cross-file context (paper,
section 3.2): as the likeliest token (greedy), or by a threshold on what a gate makes of it (`policy.gating.gate`).
Where it has not, the paper's *trial retrieval* stands in: retrieve, and use what was found if its similarity to the
lines at the cursor is high enough. It knows nothing of the model, but it makes any model selective. A decision says
what made it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from policy.gating.gate import Gate, Known

Policy = Literal["selective", "always", "never"]
SelectionRule = Literal["threshold", "token", "greedy"]
DecisionSource = Literal["evidence", "hybrid", "token", "similarity", "policy"]

# Trial retrieval's threshold, on the Jaccard similarity of the best chunk: it retrieves for about half of the cursors.
SIMILARITY = 0.25


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to retrieve, and why.

    `p_retrieve` is in [0, 1]: what the gate says for "evidence", "hybrid" and "token", the best chunk's similarity for
    "similarity", 1 or 0 for "policy". It is compared with `threshold`, except under greedy selection. `held`: it was
    made earlier on this line (`policy.completion.pinned.LineDecisions`).
    """

    p_retrieve: float
    threshold: float
    retrieve: bool
    source: DecisionSource
    held: bool = False


def by_policy(policy: Policy) -> Decision | None:
    """The decision that a policy makes without asking anybody; None for `selective`."""
    if policy == "selective":
        return None
    return Decision(1.0 if policy == "always" else 0.0, 0.5, policy == "always", "policy")


def by_gate(gate: Gate, known: Known, threshold: float | None = None) -> Decision | None:
    """Retrieve where the gate's probability is over `threshold` (None: its own); None where it lacks what it needs."""
    p = gate.probability(known)
    if p is None:
        return None
    limit = gate.threshold(known.kind) if threshold is None else threshold
    return Decision(p, limit, p > limit, gate.name)


def by_likeliest(p_cc: float, *, cc_is_top: bool) -> Decision:
    """Greedy selection: retrieve where no token is likelier than `<cc>`."""
    return Decision(p_cc, 0.5, cc_is_top, "token")


def by_similarity(best: float, threshold: float = SIMILARITY) -> Decision:
    """Trial retrieval (paper, section 6.1): `best` is the similarity of the best chunk found, 0 for none."""
    return Decision(best, threshold, best > threshold, "similarity")
