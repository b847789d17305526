"""Statistics, compared with scikit-learn and with known values.

Tests import scikit-learn only where they use it, because the import takes seconds, and every run of pytest imports this
module.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from policy.evaluation import statistics


@pytest.mark.parametrize("seed", range(20))
def test_auc_equals_scikit_learn(seed: int) -> None:
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(seed)
    positive = random.random(300) < 0.3
    scores = np.round(
        random.random(300) + 0.3 * positive, 1 if seed % 2 else 9
    )  # in every second case, rounding to one digit makes many equal scores
    assert statistics.auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("bins", [5, 10])
def test_calibration_equals_scikit_learn(seed: int, bins: int) -> None:
    from sklearn.calibration import calibration_curve

    random = np.random.default_rng(seed)
    p = np.round(random.beta(1, 3, 500), 2)  # two digits, so that some values are exactly on the border of two bins
    positive = random.random(500) < p
    observed, predicted = calibration_curve(positive, p, n_bins=bins)
    found = statistics.calibration(p, positive, bins)
    assert [each.observed for each in found] == pytest.approx(observed.tolist())
    assert [each.predicted for each in found] == pytest.approx(predicted.tolist())
    weights = np.array([each.count for each in found]) / 500
    assert statistics.calibration_error(p, positive, bins) == pytest.approx(
        float(weights @ np.abs(observed - predicted))
    )


def test_a_constant_score_is_chance() -> None:
    assert statistics.auc([0.3] * 50, [number % 3 == 0 for number in range(50)]) == 0.5


def test_auc_of_one_class_is_not_a_number() -> None:
    assert math.isnan(statistics.auc([0.1, 0.2], [True, True]))


def test_the_interval_of_a_mean_has_its_nominal_coverage() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        found = statistics.mean(random.normal(3, 2, 60), seed=trial)
        covered += found.low <= 3 <= found.high
    assert 0.90 <= covered / 200 <= 0.99


def test_the_paired_test_has_few_false_alarms_and_finds_a_difference() -> None:
    random = np.random.default_rng(2)
    false_alarms = sum(statistics.paired_p(random.normal(0, 1, 40), resamples=500) < 0.05 for _ in range(200))
    assert false_alarms / 200 < 0.11
    assert statistics.paired_p(random.normal(1, 1, 40)) < 0.001


def test_the_paired_test_is_exact_for_few_pairs() -> None:
    assert statistics.paired_p([1, 1, 1, 1, 0, 0]) == pytest.approx(2 / 16)
    assert statistics.paired_p([0, 0, 0]) == 1.0


def test_statistics_of_no_values_are_nan() -> None:
    assert math.isnan(statistics.mean([]).value)
    assert math.isnan(statistics.quantile([], 0.5))
