"""Derive the result of each policy from the two completions of every blank.

A policy is represented by a weight in [0, 1] for each blank: the probability that it retrieves there. Policies that can
be served have only the weights 0 and 1. To compare policies fairly, each retrieves for the same share of the blanks,
the budget. The policy `random` has the budget as its weight at every blank. Any other policy retrieves at the blanks
with the highest scores. If the budget does not suffice for all blanks with an equal score, these blanks get equal
weights below 1. A policy whose score is constant therefore has exactly the result of `random`.
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
MOST_THRESHOLDS = 400  # maximum number of thresholds that `best_threshold` tries


@dataclass(frozen=True, slots=True)
class Choice:
    """A policy: its name, and its weights, shape (blanks,)."""

    name: str
    weights: Weights

    @property
    def share(self) -> float:
        """The share of the requests that retrieve, in [0, 1]."""
        return float(self.weights.mean()) if len(self.weights) else float("nan")


def as_served(table: Table, gates: Sequence[Gate]) -> list[Choice]:
    """Return the policies with the thresholds that serving uses.

    `gates` are the gates that the user can select; the first one is the default. A gate is ignored if one of its
    features is unknown for any blank. Without gates, the result contains no policy "selective".
    """
    count = len(table)
    score = table.column("score")
    choices = [Choice("never", np.zeros(count)), Choice("always", np.ones(count))]
    for selection, (gate, p) in _by_selection(table, gates).items():
        limits = np.array([gate.threshold(row.scale) for row in table.rows])
        choices.append(Choice(f"selective, {selection}", (p > limits).astype(float)))
    if table.selective:
        choices.append(Choice("selective, greedy", table.column("cc_is_top")))
    choices.append(Choice("trial retrieval", (score > SIMILARITY).astype(float)))
    choices.append(Choice("oracle", (table.gain > 0).astype(float)))
    return choices


def _by_selection(table: Table, gates: Sequence[Gate]) -> Mapping[str, tuple[Gate, NDArray[np.float64]]]:
    """Return each gate and its probabilities, shape (rows,), by the selection rule that uses the gate.

    The rule is "threshold" for the first gate and "token" for the second. A gate is omitted if one of its features is
    unknown for any blank.
    """
    found = {"token" if number else "threshold": (gate, table.probabilities(gate)) for number, gate in enumerate(gates)}
    return {selection: (gate, p) for selection, (gate, p) in found.items() if not np.isnan(p).any()}


def scores(table: Table, gates: Sequence[Gate]) -> Mapping[str, NDArray[np.float64]]:
    """Return the scores from which each policy decides, shape (blanks,), by the name of the policy.

    A greater score favors retrieval. The first policy is the one that serving uses.
    """
    found: dict[str, NDArray[np.float64]] = {}
    for selection, (_, p) in _by_selection(table, gates).items():
        found["selective" if selection == "threshold" else f"selective, {selection}"] = p
    found["trial retrieval"] = table.column("score")
    found["trial generation"] = table.column("surprise")
    return found


def at_budget(table: Table, share: float, gates: Sequence[Gate]) -> list[Choice]:
    """Return every policy that has a score, `random` and the oracle, all with the budget `share`.

    Each policy retrieves where its score is highest. The oracle retrieves where the gain is greatest, but never where
    the gain is not positive.
    """
    choices = [Choice(name, top_share(score, share)) for name, score in scores(table, gates).items()]
    best = np.minimum(top_share(table.gain, share), table.gain > 0)
    return [*choices, Choice("random", np.full(len(table), share)), Choice("oracle", best)]


def top_share(score: NDArray[np.float64], share: float) -> Weights:
    """Return weights with the mean `share` that are 1 for the highest scores. Equal scores get equal weights."""
    weights = np.zeros(len(score))
    remaining = share * len(score)
    for value in np.unique(score)[::-1]:
        tied = score == value
        used = min(remaining, float(tied.sum()))
        weights[tied] = used / tied.sum()
        remaining -= used
        if remaining <= 1e-12:
            break
    return weights


def values(table: Table, choice: Choice) -> NDArray[np.float64]:
    """Return the metric at each blank under a policy, shape (blanks,).

    If the weight of a blank is between 0 and 1, this is the expected value of the metric.
    """
    return table.without + choice.weights * table.gain


def abstention_precision(table: Table, choice: Choice) -> float:
    """Return the share of abstentions that retrieval would not have improved (paper, section 6.2).

    The result is NaN without abstentions.
    """
    abstained = 1 - choice.weights
    total = float(abstained.sum())
    return float((abstained * (table.gain <= 0)).sum()) / total if total else float("nan")


@dataclass(frozen=True, slots=True)
class Point:
    """The results at one threshold: share that retrieves, mean of the metric (`value`), abstention precision."""

    threshold: float
    share: float
    value: float
    abstention_precision: float


def thresholds_across(score: NDArray[np.float64], steps: int = 101) -> NDArray[np.float64]:
    """Return thresholds from just below the lowest score (always retrieve) to the highest score (never retrieve).

    For a constant score, the thresholds range from 0 to 1.
    """
    if np.ptp(score) == 0:
        return np.linspace(0, 1, steps)
    return np.linspace(score.min() - np.ptp(score) / (steps - 1), score.max(), steps)


def sweep(table: Table, score: NDArray[np.float64], thresholds: NDArray[np.float64]) -> list[Point]:
    """Return the results of the policy `score > threshold` at each threshold."""
    points = []
    for threshold in thresholds:
        choice = Choice("", (score > threshold).astype(float))
        value, precision = float(values(table, choice).mean()), abstention_precision(table, choice)
        points.append(Point(float(threshold), choice.share, value, precision))
    return points


def best_threshold(table: Table, score: NDArray[np.float64], cost: float = 0.0) -> Point:
    """Return the threshold with the greatest mean of the metric, if each retrieval costs `cost` points of the metric.

    The thresholds to try are halfway between neighboring scores, so that rounding does not matter. Of equally good
    thresholds, the highest is returned, which retrieves least.
    """
    found = np.unique(score)
    between = (found[1:] + found[:-1]) / 2
    if len(between) > MOST_THRESHOLDS:
        between = np.quantile(between, np.linspace(0, 1, MOST_THRESHOLDS))
    points = sweep(table, score, np.unique([0.0, *between, 1.0]))
    return max(points, key=lambda point: (round(point.value - cost * point.share, 9), point.threshold))
