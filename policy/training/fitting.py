"""Fit a gate on validation blanks: a logistic regression that predicts whether retrieval helps, and thresholds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from policy.gating.gate import Feature, Gate, GateInputs, Name

MAX_RETRIEVAL_SHARE = 0.6  # maximum share of the blanks at which a fitted threshold retrieves


def best_threshold(scores: Sequence[float], gains: Sequence[float], max_share: float = 0.6) -> float:
    """Return the threshold with the greatest total gain, if retrieval happens for scores above the threshold.

    `scores` and `gains` have a value for each blank. Only thresholds that retrieve for at most the share `max_share` of
    the blanks are considered. Of equally good thresholds, the function returns the highest, which retrieves least.
    Without blanks, the result is 1 (never retrieve).
    """
    if not scores:
        return 1.0
    order = np.argsort(-np.asarray(scores, float), kind="stable")
    ranked = np.asarray(scores, float)[order]
    total = np.concatenate([[0.0], np.cumsum(np.asarray(gains, float)[order])])
    allowed = [count for count in range(int(max_share * len(ranked)) + 1) if count == 0 or _splits(ranked, count)]
    count = max(allowed, key=lambda count: (total[count], -count))
    if count == 0:
        return 1.0
    below = ranked[count] if count < len(ranked) else 0.0
    return float((ranked[count - 1] + below) / 2)


def fit_gate(
    name: Name,
    features: Sequence[Feature],
    known: Sequence[GateInputs],
    gains: Sequence[float],
    max_share: float,
    helped: Sequence[bool] | None = None,
) -> Gate:
    """Fit a logistic gate on `features`, with one threshold for lines and one for blocks.

    Three arguments have a value for each validation blank: `known` has what a gate knows when it decides, `gains` the
    gain from retrieval (in points of edit similarity, or in nats), and `helped` whether retrieval helped. If `helped`
    is None, retrieval helped where the gain is above 0. The thresholds are fitted with `best_threshold`. Every feature
    must be known for each blank. If P(`<cc>`) is the only feature, and is lower where retrieval helps, the gate returns
    P(`<cc>`) unchanged.
    """
    values, gained = values_of(known, features), np.asarray(gains, float)
    means, scales = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-6)
    alone = len(features) == 1
    positive = gained > 0 if helped is None else np.asarray(helped, bool)
    fitted = logistic((values - means) / scales, positive, ridge=1e-3 if alone else 1.0)
    weights, offset = fitted[:-1] / scales, float(fitted[-1] - (fitted[:-1] * means / scales).sum())
    if alone and features[0] == "token" and weights[0] <= 0:
        weights, offset = np.ones(1), 0.0
    p = sigmoid(values @ weights + offset)
    line = np.array([each.kind == "line" for each in known])
    limits = [best_threshold(p[half].tolist(), gained[half].tolist(), max_share) for half in (line, ~line)]
    return Gate(name, dict(zip(features, weights.tolist(), strict=True)), offset, *limits)


def values_of(known: Sequence[GateInputs], features: Sequence[Feature]) -> NDArray[np.float64]:
    """Return the values of `features` for each blank, shape (blanks, features), with NaN for an unknown value."""
    found = [[each.value(feature) for feature in features] for each in known]
    return np.array([[np.nan if value is None else value for value in row] for row in found], float)


def logistic(features: NDArray[np.float64], positive: NDArray[np.bool_], ridge: float = 1.0) -> NDArray[np.float64]:
    """Fit a logistic regression with Newton's method, and return its weights, shape (features + 1,).

    The last weight is the offset. `features` has the shape (rows, features), and `positive` has the shape (rows,).
    `ridge` is the strength of the L2 penalty on all weights except the offset.
    """
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
    """Return 1 / (1 + exp(-values)) without overflow."""
    halves: NDArray[np.float64] = 0.5 * (1.0 + np.tanh(0.5 * values))
    return halves


def _splits(ranked: NDArray[np.float64], count: int) -> bool:
    """Return whether a threshold can separate the first `count` of the scores from the rest. Scores are descending."""
    return count == len(ranked) or bool(ranked[count - 1] > ranked[count])
