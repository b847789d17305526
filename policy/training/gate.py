"""Step 8, `train gate`: decisions by more than the token, compared with it on the results of an evaluation.

A gate is a logistic regression of a few hundred bytes on what is known when the decision is due: P(`<cc>`), the entropy
and the top probability of the first token to be generated (compare CARD, arXiv 2406.10263), what retrieval found
meanwhile (`policy.gating.evidence`), and what is completed (line or block). Boosted trees have no advantage on so few.

Each gate is judged on repositories that it was not fitted on: they are split in halves, each half is judged by the
gate of the other, threshold included, and that is repeated for several splits. What is written is fitted on all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.evaluation import record, table
from policy.evaluation.statistics import auc, bootstrap, calibration_error, mean, paired_p
from policy.evaluation.table import Row, Table
from policy.gating.gate import Feature, Gate, Name

from . import manifest
from .fitting import MOST_RETRIEVED, fit_gate, values_of

SPLITS = 10
FEWEST = 20  # blanks; fewer say nothing
_ENGINE: tuple[Feature, ...] = ("entropy", "top", "block")
_FOUND: tuple[Feature, ...] = ("score", "second", "names", "overlap")
GATES: Mapping[str, tuple[Feature, ...]] = {
    "score": ("score",),
    "scores": _FOUND,
    "engine": _ENGINE,
    "engine+scores": (*_ENGINE, *_FOUND),
    "overlap": ("overlap",),
    "token": ("token",),
    "token+overlap": ("token", "overlap"),
    "token+engine": ("token", *_ENGINE),
    "token+scores": ("token", *_FOUND),
    "token+engine+overlap": ("token", *_ENGINE, "overlap"),
    "all": ("token", *_ENGINE, *_FOUND),
}


def run(out: Path, evaluated: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Write `OUT/NAME.json` for each gate whose features the results in `evaluated` have; returns what each is worth.

    `evaluated` are the folders of runs of `repoformer-lsp eval` on validation repositories. Raises `TrainingError` for
    too few of them.
    """
    inputs = {f"evaluated {number}": folder / record.RESULTS for number, folder in enumerate(evaluated, start=1)}
    manifest.begin(out, "gate", inputs, {})
    rows = results(evaluated)
    repositories = len({row.repository for row in rows})
    if not enough(rows):
        raise manifest.TrainingError(
            f"too few results in {', '.join(map(str, evaluated))} to fit a gate: "
            f"{len(rows)} blanks of {repositories} repositories"
        )
    worth: dict[str, dict[str, Any]] = {}
    for name, features in GATES.items():
        if not is_known(rows, features):
            continue
        worth[name] = judge(rows, *held_out(rows, features))
        (out / f"{name}.json").write_text(json.dumps(asdict(fit(rows, features)), indent=1) + "\n", "utf-8")
    manifest.finish(out, gates=worth, counts={"blanks": len(rows), "repositories": repositories})
    return worth


def results(evaluated: Sequence[Path]) -> list[Row]:
    """The rows of all of these runs; a blank that more than one of them drew counts once."""
    rows = [row for folder in evaluated for row in table.read(folder / record.RESULTS) if not row.quiet]
    return list({row.id: row for row in rows}.values())


def enough(rows: Sequence[Row]) -> bool:
    """Whether there is anything to say of repositories that a gate was not fitted on."""
    return len(rows) >= FEWEST and len({row.repository for row in rows}) > 1


def fit(rows: Sequence[Row], features: Sequence[Feature]) -> Gate:
    """A gate from results, its thresholds fitted on them too."""
    name: Name = "token" if tuple(features) == GATES["token"] else "hybrid"
    return fit_gate(name, features, [row.known for row in rows], [row.gain for row in rows], MOST_RETRIEVED)


def best(rows: Sequence[Row]) -> str:
    """Which of the gates with the token to ship, by AUC on repositories that they were not fitted on.

    Not just the greatest, which more features reach by luck: of those that are within a standard error of it, the one
    with the fewest features (the one-standard-error rule of Breiman et al., 1984).
    """
    positive = np.array([row.gain > 0 for row in rows])
    said = {
        name: held_out(rows, features)[0]
        for name, features in GATES.items()
        if "token" in features and is_known(rows, features)
    }
    areas = {name: auc(p, positive) for name, p in said.items()}
    greatest = said[max(areas, key=lambda name: areas[name])]

    def near(name: str) -> bool:
        less = bootstrap(
            lambda taken: auc(greatest[taken], positive[taken]) - auc(said[name][taken], positive[taken]), len(rows)
        )
        return less.value <= (less.high - less.low) / (2 * 1.96)

    return min(filter(near, areas), key=lambda name: (len(GATES[name]), -areas[name]))


def is_known(rows: Sequence[Row], features: Sequence[Feature]) -> bool:
    """Whether every row has them all."""
    return not np.isnan(values_of([row.known for row in rows], features)).any()


def held_out(rows: Sequence[Row], features: Sequence[Feature]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each row, by gates that know nothing of its repository: the mean probability, and in which share of the
    splits it was retrieved for. Both have shape (rows,).
    """
    p, chosen = np.zeros(len(rows)), np.zeros(len(rows))
    for seed in range(SPLITS):
        first = halves([row.repository for row in rows], seed)
        for half in (first, ~first):
            gate = fit([row for row, other in zip(rows, half, strict=True) if not other], features)
            own = Table.of(row for row, other in zip(rows, half, strict=True) if other)
            said = own.probabilities(gate)
            p[half] += said / SPLITS
            chosen[half] += (said > [gate.threshold(row.scale) for row in own.rows]) / SPLITS
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
