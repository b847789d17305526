"""Is a figure more than luck: intervals, paired tests, and what a score is worth as a decision.

Everything is by blank and by resampling, which assumes nothing of how edit similarity is distributed (it is anything
but normal: mostly the difference is exactly zero). Seeds are fixed, so a report repeated from the same file is the
same report.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
_BLOCK = 2_000_000  # cells of one resampling matrix at a time


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and the 95% interval around it; NaN where the data cannot tell."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


NOTHING = Estimate(math.nan, math.nan, math.nan)


def mean(values: ArrayLike, *, seed: int = 0) -> Estimate:
    """The mean with its percentile bootstrap interval."""
    array = np.asarray(values, float)
    if not len(array):
        return NOTHING
    means = np.concatenate([array[rows].mean(axis=1) for rows in _resamples(len(array), seed)])
    return Estimate(float(array.mean()), *_interval(means))


def bootstrap(
    figure: Callable[[NDArray[np.intp]], float], count: int, *, seed: int = 0, resamples: int = 400
) -> Estimate:
    """Any figure of `count` blanks, given as a function of their row numbers; undefined resamples are left out."""
    if not count:
        return NOTHING
    values = [figure(rows) for block in _resamples(count, seed, resamples) for rows in block]
    defined = np.array([value for value in values if not math.isnan(value)])
    return Estimate(figure(np.arange(count)), *_interval(defined)) if len(defined) else NOTHING


def paired_p(differences: ArrayLike, *, seed: int = 0, resamples: int = 10_000) -> float:
    """Two-sided p of a mean difference of zero, by flipping signs at random (exact in the limit).

    Pairs that do not differ say nothing about the sign and are left out, as in a sign test.
    """
    array = np.asarray(differences, float)
    array = array[array != 0]
    if not len(array):
        return 1.0
    if len(array) <= 12:
        signs = 1 - 2 * ((np.arange(1 << len(array))[:, None] >> np.arange(len(array))) & 1)
        sums = np.abs(signs @ array)
        return float((sums >= abs(array.sum()) - 1e-9).mean())
    random = np.random.default_rng(seed)
    extreme, done = 0, 0
    while done < resamples:
        rows = min(resamples - done, max(1, _BLOCK // len(array)))
        signs = random.integers(0, 2, (rows, len(array)), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ array) >= abs(array.sum()) - 1e-9).sum())
        done += rows
    return (extreme + 1) / (resamples + 1)


def auc(scores: ArrayLike, positive: ArrayLike) -> float:
    """Area under the ROC curve: how often a positive scores higher than a negative, ties counted half.

    NaN where one class is absent.
    """
    values, labels = np.asarray(scores, float), np.asarray(positive, bool)
    below = np.sort(values[~labels])
    above = values[labels]
    if not len(below) or not len(above):
        return math.nan
    wins = np.searchsorted(below, above, "left").sum() + np.searchsorted(below, above, "right").sum()
    return float(wins / 2 / len(below) / len(above))


@dataclass(frozen=True, slots=True)
class Bin:
    """Blanks whose probabilities lie in one interval: how many, the mean probability, the observed rate."""

    count: int
    predicted: float
    observed: float


def calibration(probabilities: ArrayLike, positive: ArrayLike, bins: int = 10) -> list[Bin]:
    """Non-empty bins of equal width over [0, 1]; a value on a border belongs to the bin below it."""
    p, labels = np.asarray(probabilities, float), np.asarray(positive, float)
    borders = np.linspace(0, 1, bins + 1)[1:-1]
    places = np.searchsorted(borders, p, "left")
    return [
        Bin(int((places == at).sum()), float(p[places == at].mean()), float(labels[places == at].mean()))
        for at in np.unique(places)
    ]


def calibration_error(probabilities: ArrayLike, positive: ArrayLike, bins: int = 10) -> float:
    """Expected calibration error: the bins' gaps between prediction and observation, weighted by their counts."""
    found = calibration(probabilities, positive, bins)
    total = sum(each.count for each in found)
    return sum(each.count * abs(each.predicted - each.observed) for each in found) / total if total else math.nan


def quantile(values: ArrayLike, share: float) -> float:
    """The value that a share of `values` does not exceed; NaN of none."""
    array = np.asarray(values, float)
    return float(np.quantile(array, share)) if len(array) else math.nan


def _resamples(count: int, seed: int, resamples: int = RESAMPLES) -> list[NDArray[np.intp]]:
    random = np.random.default_rng(seed)
    step = max(1, _BLOCK // count)
    sizes = [min(step, resamples - done) for done in range(0, resamples, step)]
    return [random.integers(0, count, (size, count)) for size in sizes]


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
