"""How the tokens that are not in the KV cache change a decision."""

from __future__ import annotations

import pytest

from policy.completion.cost import considering_cache
from policy.engine.messages import Missing
from policy.gating.decision import Decision

CACHED, NOT_CACHED, PARTLY_CACHED = 5, 300, 140
CONTEXT_TOKENS = 64


@pytest.mark.parametrize(
    ("p", "plain", "retrieved", "fixed", "retrieve", "deferred"),
    [
        (0.51, CACHED, CACHED, False, True, False),
        (0.49, CACHED, CACHED, False, False, False),
        # Nothing is cached: the chunks must be worth reading.
        (0.6, NOT_CACHED, NOT_CACHED, False, True, False),
        (0.51, NOT_CACHED, NOT_CACHED, False, False, False),
        (0.51, NOT_CACHED, NOT_CACHED, True, True, False),
        # Only the prompt without chunks is cached.
        (0.55, CACHED, NOT_CACHED, False, False, False),
        (0.6, CACHED, NOT_CACHED, False, False, True),
        (0.55, CACHED, NOT_CACHED, True, False, True),
        (0.4, CACHED, NOT_CACHED, False, False, False),
        # A part of the prompt without chunks is cached.
        (0.6, PARTLY_CACHED, NOT_CACHED, False, False, True),
        (0.4, PARTLY_CACHED, NOT_CACHED, False, False, False),
        (0.6, NOT_CACHED, PARTLY_CACHED, False, True, False),
        # The chunks explain the difference: nothing is cached.
        (0.6, 300, 300 + CONTEXT_TOKENS, False, True, False),
        (0.6, 100, 100 + CONTEXT_TOKENS, False, True, False),
        # The prompt without chunks lacks few tokens, the other one not many more.
        (0.6, 50, 90, False, False, True),
        # Only the prompt with chunks is cached.
        (0.45, NOT_CACHED, CACHED, False, True, False),
        (0.4, NOT_CACHED, CACHED, False, False, False),
        (0.45, NOT_CACHED, CACHED, True, False, False),
    ],
)
def test_a_decision_considers_the_cache(
    p: float, plain: int, retrieved: int, fixed: bool, retrieve: bool, deferred: bool
) -> None:
    missing = Missing((plain, retrieved), (0, CONTEXT_TOKENS), 0.0)
    decision = considering_cache(Decision(p, 0.5, p > 0.5, "evidence"), missing, fixed=fixed)
    assert (decision.retrieve, decision.deferred) == (retrieve, deferred)
    assert decision.p_retrieve == p
    assert decision.retrieve == (p > decision.threshold and not deferred)
