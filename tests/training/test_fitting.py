"""Thresholds and gates on made-up scores."""

from __future__ import annotations

import numpy as np
import pytest

from policy.training import gate
from policy.training.fitting import best_threshold
from policy.training.label import Label


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


def test_a_gate_learns_what_its_feature_says() -> None:
    random = np.random.default_rng(2)
    scores = random.random(400)
    labels = [
        Label(str(n), "line", 50.0, 50.0 + (9 if score + random.normal(0, 0.1) > 0.7 else -3), 9, 9, 5, score, 1, 0.5)
        for n, score in enumerate(scores)
    ]
    fitted = gate.fit(labels[:300], ("score", "entropy"), {})
    judged = gate.judge(fitted.probabilities(gate.table(labels[300:], ("score", "entropy"), {})), labels[300:])
    assert judged["auc"] > 0.9
    assert judged["selected"] > max(judged["never"], judged["always"])
    assert fitted.p_retrieve({"score": 0.95, "entropy": 1.0}) > fitted.threshold
    assert fitted.p_retrieve({"score": 0.05, "entropy": 1.0}) < fitted.threshold
