"""Step 8, `train gate`: decisions by more than the token, compared with it on the results of an evaluation.

A gate is a logistic regression of a few hundred bytes on what is known when the decision is due: P(`<cc>`), the entropy
and the top probability of the first token to be generated (compare CARD, arXiv 2406.10263), what retrieval found
meanwhile (`policy.evidence`), and what is completed (line or block). Boosted trees have no advantage on so few.

Each gate is judged on repositories that it was not fitted on: they are split in halves, each half is judged by the
gate of the other, threshold included, and that is repeated for several splits. What is written is fitted on all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.evaluation import record, table
from policy.evaluation.statistics import auc, bootstrap, calibration_error, mean, paired_p
from policy.evaluation.table import Row

from . import manifest
from .fitting import MOST_RETRIEVED, best_threshold, logistic, sigmoid

SPLITS = 10
FEWEST = 20  # blanks; fewer say nothing
FEATURES: Mapping[str, Callable[[Row], float | None]] = {
    "token": lambda row: None if row.p_raw is None else _log_odds(row.p_raw),
    "entropy": lambda row: row.first_entropy,
    "top": lambda row: row.first_p,
    "score": lambda row: row.score,
    "second": lambda row: row.second,
    "names": lambda row: None if row.names is None else math.log1p(row.names),
    "block": lambda row: float(row.scale == "block"),
}
_ENGINE, _FOUND = ("entropy", "top", "block"), ("score", "second", "names")
GATES: Mapping[str, tuple[str, ...]] = {
    "score": ("score",),
    "scores": _FOUND,
    "engine": _ENGINE,
    "engine+scores": (*_ENGINE, *_FOUND),
    "token": ("token",),
    "token+engine": ("token", *_ENGINE),
    "token+scores": ("token", *_FOUND),
    "all": ("token", *_ENGINE, *_FOUND),
}


@dataclass(frozen=True, slots=True)
class Gate:
    """Standardised features, weights (one more than features: the offset), and the threshold that was fitted."""

    features: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    threshold: float

    def p_retrieve(self, values: Mapping[str, float]) -> float:
        """Probability that retrieval helps, from named features."""
        return float(self.probabilities(np.array([[values[name] for name in self.features]]))[0])

    def probabilities(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same for rows of features in their order, (rows, features) to (rows,)."""
        scaled = (values - np.array(self.means)) / np.array(self.scales)
        return sigmoid(scaled @ np.array(self.weights[:-1]) + self.weights[-1])


def run(out: Path, evaluated: Path) -> dict[str, dict[str, Any]]:
    """Write `OUT/NAME.json` for each gate whose features the results in `evaluated` have; returns what each is worth.

    `evaluated` is the folder of a run of `repoformer-lsp eval` on validation repositories. Raises `TrainingError` for
    too few of them.
    """
    results = evaluated / record.RESULTS
    manifest.begin(out, "gate", {"evaluated": results}, {})
    rows = table.read(results)
    repositories = len({row.repository for row in rows})
    if len(rows) < FEWEST or repositories < 2:
        raise manifest.TrainingError(
            f"too few results in {evaluated} to fit a gate: {len(rows)} blanks of {repositories} repositories"
        )
    worth: dict[str, dict[str, Any]] = {}
    for name, features in GATES.items():
        if any(math.isnan(value) for value in values_of(rows, features).flat):
            continue
        worth[name] = judge(rows, *held_out(rows, features))
        (out / f"{name}.json").write_text(json.dumps(asdict(fit(rows, features)), indent=1) + "\n", "utf-8")
    manifest.finish(out, gates=worth, counts={"blanks": len(rows), "repositories": repositories})
    return worth


def fit(rows: Sequence[Row], features: Sequence[str]) -> Gate:
    """A gate from results, its threshold fitted on them too."""
    values = values_of(rows, features)
    means, scales = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-6)
    gains = np.array([row.gain for row in rows])
    weights = logistic((values - means) / scales, gains > 0)
    gate = Gate(tuple(features), tuple(means.tolist()), tuple(scales.tolist()), tuple(weights.tolist()), 1.0)
    threshold = best_threshold(gate.probabilities(values).tolist(), gains.tolist(), MOST_RETRIEVED)
    return Gate(gate.features, gate.means, gate.scales, gate.weights, threshold)


def held_out(rows: Sequence[Row], features: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each row, by gates that know nothing of its repository: the mean probability, and in which share of the
    splits it was retrieved for. Both have shape (rows,).
    """
    p, chosen = np.zeros(len(rows)), np.zeros(len(rows))
    for seed in range(SPLITS):
        first = halves([row.repository for row in rows], seed)
        for half in (first, ~first):
            gate = fit([row for row, other in zip(rows, half, strict=True) if not other], features)
            said = gate.probabilities(values_of([row for row, own in zip(rows, half, strict=True) if own], features))
            p[half] += said / SPLITS
            chosen[half] += (said > gate.threshold) / SPLITS
    return p, chosen


def halves(repositories: Sequence[str], seed: int) -> NDArray[np.bool_]:
    """Which rows are in the first half: whole repositories, at random, about as many rows as in the other."""
    names, counts = np.unique(repositories, return_counts=True)
    sizes, first = [0, 0], set()
    for number in np.random.default_rng(seed).permutation(len(names)):
        half = int(sizes[1] < sizes[0])
        sizes[half] += int(counts[number])
        if half == 0:
            first.add(str(names[number]))
    return np.array([repository in first for repository in repositories])


def values_of(rows: Sequence[Row], features: Sequence[str]) -> NDArray[np.float64]:
    """Feature values, (rows, features); NaN where a row does not have one."""
    found = [[FEATURES[name](row) for name in features] for row in rows]
    return np.array([[math.nan if value is None else value for value in each] for each in found], float)


def judge(rows: Sequence[Row], p: NDArray[np.float64], chosen: NDArray[np.float64]) -> dict[str, Any]:
    """AUC, by kind too; calibration error; edit similarity against never and always.

    `chosen` is how often each row is retrieved for. Figures with an interval are [value, low, high] by blank.
    """
    gains = np.array([row.gain for row in rows])
    kinds = np.array([row.kind for row in rows])
    without = np.array([row.es_without for row in rows])
    area = bootstrap(lambda taken: auc(p[taken], gains[taken] > 0), len(rows))
    areas = {str(kind): auc(p[kinds == kind], gains[kinds == kind] > 0) for kind in np.unique(kinds)}
    saved = (chosen - 1) * gains
    return {
        "auc": _figure(area.value, area.low, area.high),
        "auc_by_kind": {kind: round(value, 4) for kind, value in areas.items() if not math.isnan(value)},
        "calibration_error": calibration_error(p, gains > 0),
        "never": float(without.mean()),
        "always": float((without + gains).mean()),
        "selected": float((without + chosen * gains).mean()),
        "share": float(chosen.mean()),
        "against_always": _figure(*asdict(mean(saved)).values()),
        "p_against_always": paired_p(saved),
    }


def lines(worth: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the gates are worth, as a table for people."""
    said = [f"{'gate':16}{'AUC':>22}{'retrieves':>11}{'ES':>8}{'never':>8}{'always':>8}  against always"]
    for name, each in worth.items():
        area, against = ("{:.3f} [{:.3f}, {:.3f}]", "{:+.2f} [{:+.2f}, {:+.2f}]")
        said.append(
            f"{name:16}{area.format(*each['auc']):>22}{each['share']:11.0%}{each['selected']:8.2f}{each['never']:8.2f}"
            f"{each['always']:8.2f}  {against.format(*each['against_always'])}, p = {each['p_against_always']:.3f}"
        )
    return said


def _figure(*values: float) -> list[float]:
    return [round(value, 4) for value in values]


def _log_odds(p: float) -> float:
    p = min(max(p, 1e-9), 1 - 1e-9)
    return math.log(p / (1 - p))
