"""What is fitted on validation data: a threshold, and a logistic curve. The figures are `policy.evaluation`'s."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


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
