"""Measures against definitions written out in full."""

from __future__ import annotations

import numpy as np
import pytest

from policy.training import gate, measure
from policy.training.label import Label


def _distance(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        row, before = [i], row
        for j, right in enumerate(b, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (left != right)))
    return row[-1]


def test_edit_similarity_is_its_definition() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        a, b = ("".join(random.choice(list("ab\n é"), random.integers(0, 9))) for _ in range(2))
        longest = max(len(a), len(b))
        expected = 100 * (1 - _distance(a, b) / longest) if longest else 100.0
        assert measure.edit_similarity(a, b) == pytest.approx(expected)


def test_auc_is_the_share_of_ordered_pairs() -> None:
    random = np.random.default_rng(1)
    scores, labels = random.integers(0, 6, 80), random.random(80) < 0.4
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[labels] for n in scores[~labels]]
    assert measure.auc(scores, labels) == pytest.approx(np.mean(pairs))
    assert np.isnan(measure.auc([1.0, 2.0], [True, True]))


def test_calibration_error() -> None:
    assert measure.calibration_error([0.05] * 20, [False] * 19 + [True]) == pytest.approx(0.0)
    assert measure.calibration_error([1.0] * 4, [True, True, False, False]) == pytest.approx(0.5)


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
    threshold = measure.best_threshold(scores, gains, most)
    assert sum(score > threshold for score in scores) == chosen


def test_a_prediction_is_cut_to_the_lines_of_the_truth() -> None:
    assert measure.cut("a\nb\nc", "x\ny") == "a\nb"
    assert measure.cut("a\nb", "x") == "a"


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
