"""What each policy would have done, worked out from the two completions that every blank has.

A policy is a weight a blank in [0, 1]: the probability of retrieving there. Real policies have zeros and ones; `random`
has its budget everywhere, and where a budget ends inside a tie, the tied blanks share what is left. So a score that is
the same everywhere is exactly `random`, and nothing can be gained by sorting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy.gating.decision import SIMILARITY
from policy.gating.gate import Gate

from .table import Table

Weights = NDArray[np.float64]
MOST_THRESHOLDS = 400


@dataclass(frozen=True, slots=True)
class Choice:
    """A policy's name, and its weights."""

    name: str
    weights: Weights

    @property
    def share(self) -> float:
        """Share of requests that retrieve."""
        return float(self.weights.mean()) if len(self.weights) else float("nan")


def as_served(table: Table, gates: Sequence[Gate]) -> list[Choice]:
    """The policies with the thresholds they are served with; `selective` only where the model decides.

    `gates` are those that a person can choose, the first of them is the default.
    """
    count = len(table)
    score = table.column("score")
    choices = [Choice("never", np.zeros(count)), Choice("always", np.ones(count))]
    if table.selective:
        for selection, gate in named(gates).items():
            p = table.probabilities(gate)
            limits = np.array([gate.threshold(row.scale) for row in table.rows])
            choices.append(Choice(f"selective, {selection}", (p > limits).astype(float)))
        choices.append(Choice("selective, greedy", table.column("cc_is_top")))
    choices.append(Choice("trial retrieval", (score > SIMILARITY).astype(float)))
    choices.append(Choice("oracle", (table.gain > 0).astype(float)))
    return choices


def named(gates: Sequence[Gate]) -> Mapping[str, Gate]:
    """Gates by the selection that they are served under: the default one by "threshold", the token's by "token"."""
    return {"token" if number else "threshold": gate for number, gate in enumerate(gates)}


def scores(table: Table, gates: Sequence[Gate]) -> Mapping[str, NDArray[np.float64]]:
    """What can be known before a decision, by the policy that looks at it; greater speaks for retrieval."""
    found: dict[str, NDArray[np.float64]] = {}
    if table.selective:
        found |= {"selective, token" if number else "selective": table.probabilities(gate)
                  for number, gate in enumerate(gates)}  # fmt: skip
    found["trial retrieval"] = table.column("score")
    found["trial generation"] = table.column("surprise")
    return found


def at_budget(table: Table, share: float, gates: Sequence[Gate]) -> list[Choice]:
    """Every policy retrieving in the same share of requests: where the score is highest; `random` and the oracle."""
    choices = [Choice(name, top(score, share)) for name, score in scores(table, gates).items()]
    best = np.minimum(top(table.gain, share), table.gain > 0)
    return [*choices, Choice("random", np.full(len(table), share)), Choice("oracle", best)]


def top(score: NDArray[np.float64], share: float) -> Weights:
    """Weights that retrieve in a share of blanks, highest scores first, ties together."""
    weights = np.zeros(len(score))
    left = share * len(score)
    for value in np.unique(score)[::-1]:
        tied = score == value
        taken = min(left, float(tied.sum()))
        weights[tied] = taken / tied.sum()
        left -= taken
        if left <= 1e-12:
            break
    return weights


def values(table: Table, choice: Choice) -> NDArray[np.float64]:
    """The metric, blank by blank, under a policy (expected, where its weight is between 0 and 1)."""
    return table.without + choice.weights * table.gain


def abstention_precision(table: Table, choice: Choice) -> float:
    """Of the abstentions, the share that retrieval could not have improved (paper, section 6.2). NaN without any."""
    abstained = 1 - choice.weights
    total = float(abstained.sum())
    return float((abstained * (table.gain <= 0)).sum()) / total if total else float("nan")


@dataclass(frozen=True, slots=True)
class Point:
    """A policy with one threshold: share of retrieval, mean of the metric, abstention precision."""

    threshold: float
    share: float
    value: float
    abstention_precision: float


def across(score: NDArray[np.float64], steps: int = 101) -> NDArray[np.float64]:
    """Thresholds from just below the least score, over which everything is, to the greatest, over which nothing is.

    Of a score that is the same everywhere, from 0 to 1.
    """
    if np.ptp(score) == 0:
        return np.linspace(0, 1, steps)
    return np.linspace(score.min() - np.ptp(score) / (steps - 1), score.max(), steps)


def sweep(table: Table, score: NDArray[np.float64], thresholds: NDArray[np.float64]) -> list[Point]:
    """The policy `score > threshold` for each of some thresholds."""
    points = []
    for threshold in thresholds:
        choice = Choice("", (score > threshold).astype(float))
        value, precision = float(values(table, choice).mean()), abstention_precision(table, choice)
        points.append(Point(float(threshold), choice.share, value, precision))
    return points


def best_threshold(table: Table, score: NDArray[np.float64], cost: float = 0.0) -> Point:
    """The threshold that trades best: highest metric less `cost` (points of the metric) for each retrieval.

    Candidates lie halfway between neighbouring scores, so that none hangs on a rounding. Of equals the highest counts,
    which retrieves least.
    """
    found = np.unique(score)
    between = (found[1:] + found[:-1]) / 2
    if len(between) > MOST_THRESHOLDS:
        between = np.quantile(between, np.linspace(0, 1, MOST_THRESHOLDS))
    points = sweep(table, score, np.unique([0.0, *between, 1.0]))
    return max(points, key=lambda point: (round(point.value - cost * point.share, 9), point.threshold))
