"""Thresholds and calibration on made-up scores."""

from __future__ import annotations

import numpy as np
import pytest

from policy.decision import Calibration, TaskKind
from policy.training.fitting import best_threshold, calibrate, sigmoid


@pytest.mark.parametrize(
    ("scores", "gains", "most", "chosen"),
    [
        ([0.9, 0.8, 0.1, 0.0], [5.0, 3.0, -4.0, 0.0], 1.0, 2),
        ([0.9, 0.8, 0.7, 0.6], [1.0, 1.0, 1.0, 1.0], 0.5, 2),
        ([0.9, 0.8], [-1.0, -1.0], 1.0, 0),
        ([0.5, 0.5, 0.1, 0.1], [9.0, -1.0, -1.0, -1.0], 0.6, 2),  # equal scores cannot be told apart
        ([], [], 1.0, 0),
    ],
)
def test_best_threshold(scores: list[float], gains: list[float], most: float, chosen: int) -> None:
    threshold = best_threshold(scores, gains, most)
    assert sum(score > threshold for score in scores) == chosen


def test_a_calibrated_probability_is_the_rate_of_gains() -> None:
    random = np.random.default_rng(5)
    odds = random.normal(-1, 1, 4000)
    gains = np.where(random.random(4000) < sigmoid(0.5 * odds + 1), 8.0, -2.0)
    scales: list[TaskKind] = ["block" if number % 4 == 0 else "line" for number in range(4000)]
    fitted = calibrate(sigmoid(odds).tolist(), scales, gains.tolist(), 1.0)
    assert fitted["calibration"] == pytest.approx({"slope": 0.5, "offset": 1.0}, abs=0.1)
    told = Calibration(**fitted["calibration"]).apply(float(sigmoid(np.array(0.0))))
    assert told == pytest.approx(float(sigmoid(np.array(1.0))), abs=0.03)
    # A gain of 8 against a loss of 2: worth it from a rate of a fifth on.
    assert fitted["thresholds"]["line"] < 0.45 and fitted["thresholds"]["block"] < 0.45
