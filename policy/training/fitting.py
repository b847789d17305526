"""What is fitted on validation data: a threshold, and a logistic curve. The figures are `policy.evaluation`'s."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.decision import TaskKind
from policy.evaluation.statistics import calibration_error

MOST_RETRIEVED = 0.6  # what a default threshold may retrieve for: the rest has to be worth it by the model's own word


def best_threshold(scores: Sequence[float], gains: Sequence[float], most: float = 0.6) -> float:
    """The threshold under which retrieving for scores above it gains most, for at most a share `most` of them.

    Between equals the higher one, which retrieves less. With no data the answer is 1: never.
    """
    if not scores:
        return 1.0
    order = np.argsort(-np.asarray(scores, float), kind="stable")
    ranked = np.asarray(scores, float)[order]
    total = np.concatenate([[0.0], np.cumsum(np.asarray(gains, float)[order])])
    allowed = [count for count in range(int(most * len(ranked)) + 1) if count == 0 or _splits(ranked, count)]
    count = max(allowed, key=lambda count: (total[count], -count))
    if count == 0:
        return 1.0
    below = ranked[count] if count < len(ranked) else 0.0
    return float((ranked[count - 1] + below) / 2)


def calibrate(p: Sequence[float], scales: Sequence[TaskKind], gains: Sequence[float], most: float) -> dict[str, Any]:
    """The logistic map from P(`<cc>`) to the rate of gains, and thresholds for lines and blocks on what it gives.

    `p`, `scales` (which threshold is served there) and `gains` (in edit similarity) are of the same validation blanks.
    A decision that points the wrong way is left as it is: no map makes sense of it.
    """
    line = np.array([scale == "line" for scale in scales])
    gained = np.asarray(gains, float)
    values = np.clip(np.asarray(p, float), 1e-9, 1 - 1e-9)
    odds = np.log(values / (1 - values))[:, None]
    slope, offset = logistic(odds, gained > 0, ridge=1e-3)
    if slope <= 0:
        slope, offset = 1.0, 0.0
    values = sigmoid(slope * odds[:, 0] + offset)
    return {
        "thresholds": {
            "line": best_threshold(values[line].tolist(), gained[line].tolist(), most),
            "block": best_threshold(values[~line].tolist(), gained[~line].tolist(), most),
        },
        "calibration": {"slope": float(slope), "offset": float(offset)},
        "calibration_error": calibration_error(values, gained > 0),
    }


def logistic(features: NDArray[np.float64], positive: NDArray[np.bool_], ridge: float = 1.0) -> NDArray[np.float64]:
    """Weights (features + 1, the last the offset) of a logistic regression, by Newton's method."""
    rows = np.hstack([features, np.ones((len(features), 1))])
    penalty = ridge * np.eye(rows.shape[1])
    penalty[-1, -1] = 1e-9
    weights = np.zeros(rows.shape[1])
    for _ in range(30):
        p = sigmoid(rows @ weights)
        gradient = rows.T @ (p - positive) + penalty @ weights
        curvature = (rows * (p * (1 - p))[:, None]).T @ rows + penalty
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if np.abs(step).max() < 1e-8:
            break
    return weights


def sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-values)), without overflow."""
    halves: NDArray[np.float64] = 0.5 * (1.0 + np.tanh(0.5 * values))
    return halves


def _splits(ranked: NDArray[np.float64], count: int) -> bool:
    """Whether a threshold can take exactly the first `count` of the ranked scores."""
    return count == len(ranked) or bool(ranked[count - 1] > ranked[count])
