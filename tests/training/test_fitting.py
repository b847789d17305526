"""Thresholds and gates that are fitted to synthetic scores and gains."""

from __future__ import annotations

import numpy as np
import pytest

from policy.gating.gate import GateInputs
from policy.training.fitting import best_threshold, fit_gate, sigmoid


@pytest.mark.parametrize(
    ("scores", "gains", "max_share", "chosen"),
    [
        ([0.9, 0.8, 0.1, 0.0], [5.0, 3.0, -4.0, 0.0], 1.0, 2),
        ([0.9, 0.8, 0.7, 0.6], [1.0, 1.0, 1.0, 1.0], 0.5, 2),
        ([0.9, 0.8], [-1.0, -1.0], 1.0, 0),
        ([0.5, 0.5, 0.1, 0.1], [9.0, -1.0, -1.0, -1.0], 0.6, 2),  # no threshold separates equal scores
        ([], [], 1.0, 0),
    ],
)
def test_best_threshold(scores: list[float], gains: list[float], max_share: float, chosen: int) -> None:
    threshold = best_threshold(scores, gains, max_share)
    assert sum(score > threshold for score in scores) == chosen


def test_a_calibrated_probability_equals_the_rate_of_gains() -> None:
    random = np.random.default_rng(5)
    odds = random.normal(-1, 1, 4000)
    gains = np.where(random.random(4000) < sigmoid(0.5 * odds + 1), 8.0, -2.0)
    known = [GateInputs("block" if number % 4 == 0 else "line", p) for number, p in enumerate(sigmoid(odds).tolist())]
    fitted = fit_gate("token", ["token"], known, gains.tolist(), 1.0)
    assert fitted.weights["token"] == pytest.approx(0.5, abs=0.1)
    assert fitted.probability(GateInputs("line", 0.5)) == pytest.approx(float(sigmoid(np.array(1.0))), abs=0.03)
    # Retrieval gains 8 points where it helps, and loses 2 elsewhere. So it pays if it helps at least a fifth of the
    # blanks.
    assert fitted.line < 0.45 and fitted.block < 0.45


def test_a_token_that_predicts_the_opposite_is_left_uncalibrated() -> None:
    known = [GateInputs("line", p) for p in np.linspace(0.1, 0.9, 50)]
    fitted = fit_gate("token", ["token"], known, np.linspace(1, -1, 50).tolist(), 1.0)
    assert (fitted.weights, fitted.offset) == ({"token": 1.0}, 0.0)


def test_the_stored_gate_applies_to_unstandardised_features() -> None:
    random = np.random.default_rng(7)
    known = [GateInputs("line", 0.5, p, 100 * p + 5) for p in random.random(400)]
    gains = [1.0 if random.random() < (each.first_p or 0) else -1.0 for each in known]
    fitted = fit_gate("hybrid", ["entropy"], known, gains, 1.0)
    probabilities = [fitted.probability(each) or 0 for each in known]
    assert np.mean(probabilities) == pytest.approx(np.mean(np.array(gains) > 0), abs=0.01)
