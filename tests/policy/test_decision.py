"""The choice of a gate and of its threshold, and the decisions of gates."""

from __future__ import annotations

import math

import pytest

from policy.gating.decision import Decision, by_gate, by_likeliest, by_policy, by_similarity
from policy.gating.evidence import Evidence
from policy.gating.gate import UNCALIBRATED, Gate, GateInputs, evidence_gate, gates_of

HYBRID = Gate("hybrid", {"token": 0.5, "score": 4.0, "block": -1.0}, -1.0, 0.4, 0.3)
TOKEN = Gate("token", {"token": 0.5}, -1.0, 0.31, 0.2)


def metadata_of(*gates: Gate) -> dict[str, str]:
    return {key: str(value) for gate in gates for key, value in gate.to_metadata().items()}


def test_policies_that_need_no_model() -> None:
    assert by_policy("always") == Decision(1.0, 0.5, True, "policy")
    assert by_policy("never") == Decision(0.0, 0.5, False, "policy")
    assert by_policy("selective") is None


@pytest.mark.parametrize(("p", "retrieve"), [(0.19, False), (0.21, True)])
def test_without_a_gate_p_cc_decides(p: float, retrieve: bool) -> None:
    decision = by_gate(UNCALIBRATED, GateInputs("line", p))
    assert decision is not None
    assert decision.p_retrieve == pytest.approx(p)
    assert (decision.threshold, decision.retrieve, decision.source) == (0.2, retrieve, "token")


def test_thresholds_depend_on_the_scope_and_a_setting_overrides_them() -> None:
    limits = [by_gate(UNCALIBRATED, GateInputs("block", 0.18), own) for own in (None, 0.5)]
    assert [(each.threshold, each.retrieve) for each in limits if each] == [(0.15, True), (0.5, False)]


def test_greedy_selection_uses_the_most_probable_token() -> None:
    assert by_likeliest(0.4, cc_is_top=True) == Decision(0.4, 0.5, True, "token")
    assert by_likeliest(0.4, cc_is_top=False) == Decision(0.4, 0.5, False, "token")


def test_trial_retrieval_uses_the_similarity() -> None:
    assert by_similarity(0.3) == Decision(0.3, 0.25, True, "similarity")
    assert by_similarity(0.0) == Decision(0.0, 0.25, False, "similarity")


def test_a_hybrid_gate_uses_evidence_and_p_cc() -> None:
    def p(p_cc: float, best: float) -> float:
        decision = by_gate(HYBRID, GateInputs("line", p_cc, evidence=Evidence(best, 0.0, 0, 0.0, 0)))
        assert decision is not None and decision.source == "hybrid"
        return decision.p_retrieve

    assert p(0.5, 0.25) == pytest.approx(0.5)
    assert p(0.2, 0.1) < p(0.2, 0.4) < p(0.6, 0.4)
    assert HYBRID.needs_evidence and not TOKEN.needs_evidence
    assert by_gate(HYBRID, GateInputs("line", 0.5)) is None, "a gate decides without the evidence that it needs"
    assert by_gate(TOKEN, GateInputs("line")) is None, "a gate decides without P(<cc>), which it needs"


def test_a_gate_on_evidence_has_limits_for_being_sure() -> None:
    gate = Gate("evidence", {"score": 10.0}, -5.0, sure_below=0.2, sure_above=0.8)
    assert [gate.is_sure(p) for p in (0.0, 0.2, 0.21, 0.79, 0.8, 1.0)] == [True, True, False, False, True, True]
    assert evidence_gate(metadata_of(gate)) == gate
    assert evidence_gate(metadata_of(HYBRID)) is None
    assert Gate("evidence", {"score": 1.0}).is_sure(0.5), "a gate without limits is not sure"


def test_a_gate_on_evidence_needs_no_model() -> None:
    assert evidence_gate(metadata_of(Gate("evidence", {"score": 1.0, "top": 1.0}))) is None


def test_gates_are_stored_in_metadata() -> None:
    assert gates_of(metadata_of(TOKEN, HYBRID)) == [HYBRID, TOKEN]
    assert gates_of(metadata_of(TOKEN)) == [TOKEN]
    assert gates_of({}) == [UNCALIBRATED]


@pytest.mark.parametrize("key", ["offset", "threshold.line", "token"])
@pytest.mark.parametrize("value", ["many", "nan", None])
def test_an_invalid_gate_is_not_used(key: str, value: str | None) -> None:
    metadata = metadata_of(TOKEN)
    metadata.pop(f"repoformer.gate.token.{key}")
    if value is not None:
        metadata[f"repoformer.gate.token.{key}"] = value
    assert gates_of(metadata) == [UNCALIBRATED]


def test_a_gate_with_an_unknown_feature_is_not_used() -> None:
    assert gates_of({**metadata_of(TOKEN), "repoformer.gate.token.mood": "1.0"}) == [UNCALIBRATED]


def test_a_calibrated_probability_keeps_the_ranking() -> None:
    ranked = [TOKEN.probability(GateInputs("line", p)) or 0.0 for p in (0.0, 0.01, 0.2, 0.9, 1.0)]
    assert ranked == sorted(ranked)
    assert 0 < ranked[0] < ranked[-1] < 1
    assert TOKEN.probability(GateInputs("line", 0.5)) == pytest.approx(1 / (1 + math.e))
