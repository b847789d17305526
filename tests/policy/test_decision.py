"""Which gate decides, and against what."""

from __future__ import annotations

import math

import pytest

from policy.gating.decision import Decision, by_gate, by_likeliest, by_policy, by_similarity
from policy.gating.evidence import Evidence
from policy.gating.gate import AS_SAID, Gate, Known, evidence_gate, gates_of

HYBRID = Gate("hybrid", {"token": 0.5, "score": 4.0, "block": -1.0}, -1.0, 0.4, 0.3)
TOKEN = Gate("token", {"token": 0.5}, -1.0, 0.31, 0.2)


def carried(*gates: Gate) -> dict[str, str]:
    return {key: str(value) for gate in gates for key, value in gate.to_metadata().items()}


def test_policies_that_ask_nobody() -> None:
    assert by_policy("always") == Decision(1.0, 0.5, True, "policy")
    assert by_policy("never") == Decision(0.0, 0.5, False, "policy")
    assert by_policy("selective") is None


@pytest.mark.parametrize(("p", "retrieve"), [(0.19, False), (0.21, True)])
def test_a_model_without_a_gate_is_taken_at_its_word(p: float, retrieve: bool) -> None:
    decision = by_gate(AS_SAID, Known("line", p))
    assert decision is not None
    assert decision.p_retrieve == pytest.approx(p)
    assert (decision.threshold, decision.retrieve, decision.source) == (0.2, retrieve, "token")


def test_thresholds_go_by_the_kind_and_give_way_to_a_setting() -> None:
    limits = [by_gate(AS_SAID, Known("block", 0.18), own) for own in (None, 0.5)]
    assert [(each.threshold, each.retrieve) for each in limits if each] == [(0.15, True), (0.5, False)]


def test_greedy_selection_goes_by_the_likeliest_token() -> None:
    assert by_likeliest(0.4, cc_is_top=True) == Decision(0.4, 0.5, True, "token")
    assert by_likeliest(0.4, cc_is_top=False) == Decision(0.4, 0.5, False, "token")


def test_trial_retrieval_goes_by_the_similarity() -> None:
    assert by_similarity(0.3) == Decision(0.3, 0.25, True, "similarity")
    assert by_similarity(0.0) == Decision(0.0, 0.25, False, "similarity")


def test_a_hybrid_gate_weighs_what_was_found_against_what_the_model_asks_for() -> None:
    def p(p_cc: float, best: float) -> float:
        decision = by_gate(HYBRID, Known("line", p_cc, evidence=Evidence(best, 0.0, 0, 0.0)))
        assert decision is not None and decision.source == "hybrid"
        return decision.p_retrieve

    assert p(0.5, 0.25) == pytest.approx(0.5)
    assert p(0.2, 0.1) < p(0.2, 0.4) < p(0.6, 0.4)
    assert HYBRID.asks_retrieval and not TOKEN.asks_retrieval
    assert by_gate(HYBRID, Known("line", 0.5)) is None, "nobody knows what was found"
    assert by_gate(TOKEN, Known("line")) is None, "the model has no such token"


def test_a_gate_on_evidence_says_where_it_is_sure() -> None:
    gate = Gate("evidence", {"score": 10.0}, -5.0, sure_below=0.2, sure_above=0.8)
    assert [gate.is_sure(p) for p in (0.0, 0.2, 0.21, 0.79, 0.8, 1.0)] == [True, True, False, False, True, True]
    assert evidence_gate(carried(gate)) == gate
    assert evidence_gate(carried(HYBRID)) is None
    assert Gate("evidence", {"score": 1.0}).is_sure(0.5), "without borders the gate decides alone"


def test_a_gate_on_evidence_never_asks_the_model() -> None:
    assert evidence_gate(carried(Gate("evidence", {"score": 1.0, "top": 1.0}))) is None


def test_gates_travel_in_the_models_metadata() -> None:
    assert gates_of(carried(TOKEN, HYBRID)) == [HYBRID, TOKEN]
    assert gates_of(carried(TOKEN)) == [TOKEN]
    assert gates_of({}) == [AS_SAID]


@pytest.mark.parametrize("key", ["offset", "threshold.line", "token"])
@pytest.mark.parametrize("value", ["many", "nan", None])
def test_a_gate_that_makes_no_sense_is_not_used(key: str, value: str | None) -> None:
    metadata = carried(TOKEN)
    metadata.pop(f"repoformer.gate.token.{key}")
    if value is not None:
        metadata[f"repoformer.gate.token.{key}"] = value
    assert gates_of(metadata) == [AS_SAID]


def test_a_gate_by_a_feature_of_a_later_version_is_not_used() -> None:
    assert gates_of({**carried(TOKEN), "repoformer.gate.token.mood": "1.0"}) == [AS_SAID]


def test_a_calibrated_probability_keeps_the_ranking() -> None:
    ranked = [TOKEN.probability(Known("line", p)) or 0.0 for p in (0.0, 0.01, 0.2, 0.9, 1.0)]
    assert ranked == sorted(ranked)
    assert 0 < ranked[0] < ranked[-1] < 1
    assert TOKEN.probability(Known("line", 0.5)) == pytest.approx(1 / (1 + math.e))
