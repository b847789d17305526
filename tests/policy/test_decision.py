"""Which gate decides, and against what."""

from __future__ import annotations

import math

import pytest

from policy.decision import Calibration, Decision, Thresholds, by_policy, by_similarity, by_token
from policy.engine import Reading


def reading(p_cc: float | None, *, top: bool = False) -> Reading:
    return Reading(p_cc, p_cc, top, 0.5, 1.0, 10, 10, 0.1, 1.0)


def test_policies_that_ask_nobody() -> None:
    assert by_policy("always") == Decision(1.0, 0.5, True, "policy")
    assert by_policy("never") == Decision(0.0, 0.5, False, "policy")
    assert by_policy("selective") is None


@pytest.mark.parametrize(("p", "retrieve"), [(0.19, False), (0.2, False), (0.21, True)])
def test_threshold_selection(p: float, retrieve: bool) -> None:
    assert by_token(reading(p), 0.2, "threshold") == Decision(p, 0.2, retrieve, "token")


def test_greedy_selection_goes_by_the_likeliest_token() -> None:
    assert by_token(reading(0.4, top=True), 0.9, "greedy") == Decision(0.4, 0.9, True, "token")
    assert by_token(reading(0.4), 0.1, "greedy") == Decision(0.4, 0.1, False, "token")


def test_a_model_without_the_token_leaves_it_to_the_similarity() -> None:
    assert by_token(reading(None), 0.2, "threshold") is None
    assert by_similarity(0.3, 0.25) == Decision(0.3, 0.25, True, "similarity")
    assert by_similarity(0.0, 0.25) == Decision(0.0, 0.25, False, "similarity")


def test_thresholds_come_from_the_model() -> None:
    thresholds = Thresholds.from_metadata({"repoformer.threshold.line": "0.31", "repoformer.threshold.block": "many"})
    assert thresholds.of("line") == 0.31
    assert thresholds.of("block") == Thresholds().block


def test_a_calibrated_probability_is_the_rate_that_was_seen() -> None:
    fitted = Calibration.from_metadata({"repoformer.calibration.slope": "0.5", "repoformer.calibration.offset": "-1"})
    assert fitted.apply(0.5) == pytest.approx(1 / (1 + math.e))
    ranked = [fitted.apply(p) for p in (0.0, 0.01, 0.2, 0.9, 1.0)]
    assert ranked == sorted(ranked)
    assert 0 < ranked[0] < ranked[-1] < 1
    for nonsense in ({}, {"repoformer.calibration.slope": "-2", "repoformer.calibration.offset": "0"}):
        assert Calibration.from_metadata(nonsense).apply(0.3) == pytest.approx(0.3)
