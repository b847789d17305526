"""Compute intervals, paired tests, the AUC and the calibration error.

Intervals come from resampling the blanks (bootstrap), and p-values from flipping the signs of differences at random.
Both methods assume nothing about the distribution of edit similarity, which is far from normal: most differences are
exactly zero. Seeds are fixed, so the same results always give the same report.
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
_BLOCK = 2_000_000  # maximum number of cells of a resampling matrix, which limits its memory


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95% interval. All three values are NaN if the data do not determine the figure."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


UNDEFINED = Estimate(math.nan, math.nan, math.nan)


def mean(values: ArrayLike, *, seed: int = 0) -> Estimate:
    """Return the mean with its percentile bootstrap interval."""
    array = np.asarray(values, float)
    if not len(array):
        return UNDEFINED
    means = np.concatenate([array[rows].mean(axis=1) for rows in _resamples(len(array), seed)])
    return Estimate(float(array.mean()), *_interval(means))


def bootstrap(
    figure: Callable[[NDArray[np.intp]], float], count: int, *, seed: int = 0, resamples: int = 400
) -> Estimate:
    """Return the figure of `count` blanks, with its percentile bootstrap interval.

    `figure` computes the figure from the row numbers of a sample of the blanks. Resamples for which the result is NaN
    are ignored.
    """
    if not count:
        return UNDEFINED
    values = [figure(rows) for block in _resamples(count, seed, resamples) for rows in block]
    defined = np.array([value for value in values if not math.isnan(value)])
    return Estimate(figure(np.arange(count)), *_interval(defined)) if len(defined) else UNDEFINED


def paired_p(differences: ArrayLike, *, seed: int = 0, resamples: int = 10_000) -> float:
    """Return the two-sided p-value of the hypothesis that the mean difference is zero.

    The test flips the signs of the differences: all combinations for up to 12 pairs, else `resamples` random ones.
    Pairs without a difference are ignored, as in a sign test.
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
    """Return the area under the ROC curve: how often a positive has a higher score than a negative. Ties count half.

    The result is NaN if there are no positives or no negatives.
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
    """The blanks whose predicted probability is in one interval: number, mean prediction, and share of positives."""

    count: int
    predicted: float
    observed: float


def calibration(probabilities: ArrayLike, positive: ArrayLike, bins: int = 10) -> list[Bin]:
    """Divide [0, 1] into `bins` intervals of equal width. Return the bins that contain a probability, in order.

    A probability on a border belongs to the lower bin.
    """
    p, labels = np.asarray(probabilities, float), np.asarray(positive, float)
    borders = np.linspace(0, 1, bins + 1)[1:-1]
    places = np.searchsorted(borders, p, "left")
    return [
        Bin(int((places == at).sum()), float(p[places == at].mean()), float(labels[places == at].mean()))
        for at in np.unique(places)
    ]


def calibration_error(probabilities: ArrayLike, positive: ArrayLike, bins: int = 10) -> float:
    """Return the expected calibration error: the mean over all bins of |prediction − observed share|, in [0, 1].

    The mean is weighted by the number of values in each bin.
    """
    found = calibration(probabilities, positive, bins)
    total = sum(each.count for each in found)
    return sum(each.count * abs(each.predicted - each.observed) for each in found) / total if total else math.nan


def quantile(values: ArrayLike, share: float) -> float:
    """Return the quantile of `values` at `share` in [0, 1], or NaN if there are no values."""
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
