"""How good a completion or a decision is: edit similarity, AUC, calibration error, the best threshold.

The definitions of the paper (section 5.1); numpy and rapidfuzz, nothing that needs the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rapidfuzz.distance import Levenshtein


def edit_similarity(predicted: str, truth: str) -> float:
    """ES = 1 - Levenshtein / longer length, times 100; two empty texts are equal."""
    longest = max(len(predicted), len(truth))
    return 100.0 * (1.0 - Levenshtein.distance(predicted, truth) / longest) if longest else 100.0


def cut(predicted: str, truth: str) -> str:
    """The first lines of a prediction, as many as the truth has (paper, section 5.1)."""
    return "\n".join(predicted.split("\n")[: truth.count("\n") + 1])


def auc(scores: ArrayLike, positive: ArrayLike) -> float:
    """Area under the ROC curve, ties counted half; NaN where one class is absent."""
    values, labels = np.asarray(scores, float), np.asarray(positive, bool)
    ordered = np.sort(values[~labels])
    if not len(ordered) or not labels.any():
        return float("nan")
    below = np.searchsorted(ordered, values[labels], "left") + np.searchsorted(ordered, values[labels], "right")
    return float(below.mean() / 2 / len(ordered))


def calibration_error(probabilities: ArrayLike, positive: ArrayLike, bins: int = 10) -> float:
    """Expected calibration error over equal-width bins."""
    p, labels = np.asarray(probabilities, float), np.asarray(positive, float)
    places = np.minimum((p * bins).astype(int), bins - 1)
    gaps = [abs(p[places == b].mean() - labels[places == b].mean()) * (places == b).mean() for b in np.unique(places)]
    return float(sum(gaps))


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
