"""Make a `Decision`: retrieve chunks of other files, or abstain.

A model with the token `<cc>` asks for cross-file context by generating this token (paper, section 3.2). P(`<cc>`) is
the probability of this token after the model has read the text before and after the cursor. Greedy selection retrieves
if `<cc>` is the most probable token. The other selection rules use a gate (`policy.gating.gate`), which computes the
probability that retrieval helps, from P(`<cc>`), from the hits of the search, or from both. This probability is
compared with a threshold.

For other models, the paper's *trial retrieval* decides: it searches, and retrieves if the similarity of the best chunk
to the lines before the cursor is above a threshold. This method works with any model, because it does not use the
model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from policy.gating.gate import Gate, GateInputs, log_odds

Policy = Literal["selective", "always", "never"]
SelectionRule = Literal["threshold", "token", "greedy"]
DecisionSource = Literal["evidence", "hybrid", "token", "similarity", "policy"]

# The threshold of trial retrieval, for the Jaccard similarity of the best chunk. At about half of all cursors, the
# similarity is above this threshold.
SIMILARITY = 0.25


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to retrieve, and how this was decided.

    `p_retrieve` is in [0, 1]. It is the gate's probability if `source` is "evidence", "hybrid" or "token", the best
    chunk's similarity if `source` is "similarity", and 1 or 0 if `source` is "policy". `retrieve` says whether
    `p_retrieve` is above `threshold`, except in greedy selection, which ignores the threshold. `held` says whether an
    earlier request on the same line made the decision (`policy.completion.pinned.LineDecisions`). `deferred` says that
    `p_retrieve` is above the threshold, but the chunks were not in the KV cache, so this completion does not wait for
    them. `retrieve` is then False.
    """

    p_retrieve: float
    threshold: float
    retrieve: bool
    source: DecisionSource
    held: bool = False
    deferred: bool = False


def by_policy(policy: Policy) -> Decision | None:
    """Return the decision of the policies `always` and `never`, which need neither the model nor the index.

    Return None for `selective`.
    """
    if policy == "selective":
        return None
    return Decision(1.0 if policy == "always" else 0.0, 0.5, policy == "always", "policy")


def by_gate(gate: Gate, known: GateInputs, threshold: float | None = None) -> Decision | None:
    """Decide with `gate`: retrieve if the gate's probability is above `threshold`.

    If `threshold` is None, the gate's own threshold is used. Return None if a value that the gate needs is unknown.
    """
    p = gate.probability(known)
    if p is None:
        return None
    limit = gate.threshold(known.kind) if threshold is None else threshold
    return Decision(p, limit, p > limit, gate.name)


def in_favor(decision: Decision, log_odds_shift: float) -> Decision:
    """Return the decision after `log_odds_shift` is subtracted from the log-odds of its threshold."""
    threshold = 0.5 * (1 + math.tanh(0.5 * (log_odds(decision.threshold) - log_odds_shift)))
    return replace(decision, threshold=threshold, retrieve=decision.p_retrieve > threshold)


def by_likeliest(p_cc: float, *, cc_is_top: bool) -> Decision:
    """Decide by greedy selection: retrieve if `<cc>` is the most probable token (`cc_is_top`)."""
    return Decision(p_cc, 0.5, cc_is_top, "token")


def by_similarity(best: float, threshold: float = SIMILARITY) -> Decision:
    """Decide by trial retrieval (paper, section 6.1).

    `best` is the similarity of the best chunk, or 0 if there is none.
    """
    return Decision(best, threshold, best > threshold, "similarity")
