"""Step `train keep`: fit the probability that the user keeps a shown text, on results of `repoformer-lsp eval`.

A text counts as kept if it is exactly correct to the end of its line. A text at a quiet place counts as not kept. Each
blank gives two texts, those that are shown without and with retrieved code, or one if both are the same. To evaluate
the estimate, the repositories are split into halves. An estimate with its thresholds is fitted on one half and
evaluated on the other half, and the results of several splits are averaged. The estimate that is written is fitted on
all repositories.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from policy.evaluation import record, table
from policy.evaluation.showing import level
from policy.evaluation.shown import Shown
from policy.evaluation.statistics import auc, calibration_error
from policy.evaluation.table import Row
from policy.gating.keep import FEATURES, Feature, Keep

from . import manifest
from .fitting import logistic, sigmoid
from .gate import SPLITS, halves

FEWEST = 40  # minimum number of shown texts for a fit
BALANCED, CAREFUL = 0.8, 0.5  # minimum share of the right texts that each of the two thresholds shows
RIDGE = 5.0  # L2 penalty on the weights; strong, because there are few texts per feature
_CROSSED = 4  # number of splits of the repositories with which the thresholds are chosen


@dataclass(frozen=True, slots=True)
class Example:
    """A shown text, and the repository of its blank. `quiet` says whether the text is at a quiet place."""

    repository: str
    shown: Shown
    quiet: bool


def run(out: Path, evaluated: Sequence[Path]) -> dict[str, Any]:
    """Write the metadata of the estimate to `OUT/keep.json`. Return its figures on held-out repositories.

    `evaluated` are folders of `repoformer-lsp eval` runs. Raises `TrainingError` if they have too few results.
    """
    inputs = {f"evaluated {number}": folder / record.RESULTS for number, folder in enumerate(evaluated, start=1)}
    manifest.begin(out, "keep", inputs, {})
    rows = [row for folder in evaluated for row in table.read(folder / record.RESULTS)]
    found = examples(list({row.id: row for row in rows}.values()))
    repositories = len({each.repository for each in found})
    if len(found) < FEWEST or repositories < 2:
        raise manifest.TrainingError(
            f"too few results in {', '.join(map(str, evaluated))} to fit an estimate: "
            f"{len(found)} shown texts of {repositories} repositories"
        )
    worth = judge(found)
    (out / "keep.json").write_text(json.dumps(fit(found).to_metadata(), indent=1) + "\n", "utf-8")
    manifest.finish(out, keep=worth, counts={"texts": len(found), "repositories": repositories})
    return worth


def examples(rows: Sequence[Row]) -> list[Example]:
    """Return the shown texts at the blanks of `rows`: one or two different texts per blank."""
    found: list[Example] = []
    for row in rows:
        texts = {each.text: each for each in (row.shown_without, row.shown_with) if each and each.text and each.values}
        found += [Example(row.repository, text, row.quiet) for text in texts.values()]
    return found


def fit(found: Sequence[Example]) -> Keep:
    """Return an estimate with thresholds that show the shares `BALANCED` and `CAREFUL` of the right texts.

    The weights are fitted on all texts. The thresholds are chosen by probabilities that come from fits on other texts
    (`_crossed`), because the probabilities of the texts on which a fit was made are too close to 0 and 1. Thresholds
    that are chosen by these would show fewer of the right texts in practice.
    """
    weights, offset = _fit(found)
    right = np.array([each.shown.right for each in found])
    p = np.mean([_crossed(found, seed) for seed in range(_CROSSED)], axis=0)
    balanced, careful = (_threshold(p[right], share) for share in (BALANCED, CAREFUL))
    named = dict(zip(FEATURES, weights.tolist(), strict=True))
    return Keep(cast("dict[Feature, float]", named), offset, balanced, careful)


def _fit(found: Sequence[Example]) -> tuple[NDArray[np.float64], float]:
    """Return the weights, shape (features,), and the offset of a regression that predicts whether a text is right."""
    values, right = _values(found), np.array([each.shown.right for each in found])
    means, scales = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-6)
    fitted = logistic((values - means) / scales, right, RIDGE)
    weights = np.where(values.std(axis=0) > 0, fitted[:-1] / scales, 0.0)
    return weights, float(fitted[-1] - (weights * means).sum())


def _crossed(found: Sequence[Example], seed: int) -> NDArray[np.float64]:
    """Return the probability of each text, shape (texts,), from a fit on the other half of the repositories."""
    first = halves([each.repository for each in found], seed)
    p = np.zeros(len(found))
    for half in (first, ~first):
        weights, offset = _fit([each for each, other in zip(found, half, strict=True) if not other])
        p[half] = sigmoid(_values(found)[half] @ weights + offset)
    return p


def judge(found: Sequence[Example]) -> dict[str, Any]:
    """Return the figures of estimates on held-out repositories: AUC (area under the ROC curve) and calibration error.

    `right` is the share of the texts that are right, as in `policy.evaluation.shown.Shown`. `settings` has, for each
    value of the setting `suggest`, the share of the texts that are `shown`, and three figures as in
    `policy.evaluation.showing.Level`. All figures of `settings` are means over several splits of the repositories.
    """
    quiet = np.array([each.quiet for each in found])
    right = np.array([each.shown.right for each in found])
    texts = [each.shown for each in found]
    p = np.zeros(len(found))
    settings: dict[str, list[dict[str, float]]] = {"eager": [], "balanced": [], "careful": []}
    for seed in range(SPLITS):
        first = halves([each.repository for each in found], seed)
        shows = {name: np.ones(len(found), bool) for name in settings}
        for half in (first, ~first):
            keep = fit([each for each, other in zip(found, half, strict=True) if not other])
            values = _values([each for each, other in zip(found, half, strict=True) if other])
            said = sigmoid(values @ np.array([keep.weights[name] for name in FEATURES]) + keep.offset)
            p[half] += said / SPLITS
            shows["balanced"][half], shows["careful"][half] = said >= keep.balanced, said >= keep.careful
        for name, chosen in shows.items():
            placed = asdict(level(name, texts, quiet, chosen))
            settings[name].append({
                "precision": placed["precision"]["value"], "found": placed["found"], "quiet": placed["quiet"],
                "shown": float(chosen.mean()),
            })  # fmt: skip
    return {
        "auc": auc(p, right),
        "calibration_error": calibration_error(p, right),
        "right": float(right.mean()),
        "settings": {name: {key: float(np.nanmean([each[key] for each in every])) for key in every[0]}
                     for name, every in settings.items()},
    }  # fmt: skip


def lines(worth: Mapping[str, Any]) -> list[str]:
    """Return the figures of an estimate as the lines of a report."""
    said = [
        f"AUC {worth['auc']:.3f}, calibration error {worth['calibration_error']:.3f}, on held-out repositories",
        f"{'suggest':10}{'shown':>8}{'right':>8}{'of the right':>14}{'quiet ones hidden':>19}",
    ]
    for name, each in worth["settings"].items():
        said.append(f"{name:10}{each['shown']:8.0%}{each['precision']:8.0%}{each['found']:14.0%}{each['quiet']:19.0%}")
    return said


def _values(found: Sequence[Example]) -> NDArray[np.float64]:
    """Return the features of each text, shape (texts, features)."""
    return np.array([[each.shown.values[name] for name in FEATURES] for each in found], float)


def _threshold(p: NDArray[np.float64], share: float) -> float:
    """Return the highest threshold that at least `share` of the values of `p` reach, or 0 without values."""
    return float(np.sort(p)[int((1 - share) * len(p))]) if len(p) else 0.0
