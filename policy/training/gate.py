"""Step 8, `train gate`: fit gates on the results of `eval` (step 7), and evaluate them on held-out repositories.

A gate is a logistic regression with a few weights. It predicts whether retrieval helps, from features that are known
when the decision is made: P(`<cc>`), the entropy and the top probability of the first generated token (compare CARD,
arXiv 2406.10263), the evidence from the hits (`policy.gating.evidence`), and whether a line or a block is completed.
Boosted trees were no better, because there are few data.

For a model that was trained to decide, gates are fitted to the gains in edit similarity. Any other model gets evidence
gates, which decide before the model reads the prompt. Evidence gates are fitted to whether retrieval made the truth
likelier, and their thresholds to the nats that retrieval saved: the decrease of -ln P of the truth. For evidence gates,
results of `eval --tokens 1` are enough, because no completion is compared.

To evaluate a gate, the repositories are split into halves. A gate with its thresholds is fitted on one half and
evaluated on the other half, and the results of several splits are averaged. The gate that is written is fitted on all
repositories.
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
from policy.evaluation.table import Row
from policy.gating.gate import Feature, Gate, Name

from . import manifest
from .fitting import MAX_RETRIEVAL_SHARE, fit_gate, values_of

SPLITS = 10
MIN_BLANKS = 20  # minimum number of blanks to fit a gate on
_ENGINE: tuple[Feature, ...] = ("entropy", "top", "block")
_RETRIEVAL: tuple[Feature, ...] = ("score", "second", "names", "overlap", "match")
GATES: Mapping[str, tuple[Feature, ...]] = {
    "score": ("score",),
    "scores": _RETRIEVAL,
    "engine": _ENGINE,
    "engine+scores": (*_ENGINE, *_RETRIEVAL),
    "overlap": ("overlap",),
    "token": ("token",),
    "token+overlap": ("token", "overlap"),
    "token+engine": ("token", *_ENGINE),
    "token+scores": ("token", *_RETRIEVAL),
    "token+engine+overlap": ("token", *_ENGINE, "overlap"),
    "all": ("token", *_ENGINE, *_RETRIEVAL),
}
EVIDENCE_GATES: Mapping[str, tuple[Feature, ...]] = {
    "evidence-score": ("score",),
    "evidence-overlap": ("overlap",),
    "evidence-match": ("match",),
    "evidence-score-match": ("score", "match"),
    "evidence": _RETRIEVAL,
    "evidence+block": (*_RETRIEVAL, "block"),
}


def run(out: Path, evaluated: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Write `OUT/NAME.json` for each gate whose features the results have. Return the metrics of each gate by its name.

    The gates are fitted on all results. `evaluated` are folders of `repoformer-lsp eval` runs on repositories that the
    model was not trained on. Raises `TrainingError` if they have too few blanks, or blanks of only one repository.
    """
    inputs = {f"evaluated {number}": folder / record.RESULTS for number, folder in enumerate(evaluated, start=1)}
    manifest.begin(out, "gate", inputs, {})
    rows = results(evaluated)
    repositories = len({row.repository for row in rows})
    if not has_enough_data(rows):
        raise manifest.TrainingError(
            f"too few results in {', '.join(map(str, evaluated))} to fit a gate: "
            f"{len(rows)} blanks of {repositories} repositories"
        )
    evaluate_held_out = evaluate if decides(rows) else evaluate_nats
    evaluations: dict[str, dict[str, Any]] = {}
    for name, features in (GATES if decides(rows) else EVIDENCE_GATES).items():
        if not has_features(rows, features):
            continue
        evaluations[name] = evaluate_held_out(rows, *held_out(rows, features))
        (out / f"{name}.json").write_text(json.dumps(asdict(fit(rows, features)), indent=1) + "\n", "utf-8")
    manifest.finish(out, gates=evaluations, counts={"blanks": len(rows), "repositories": repositories})
    return evaluations


def decides(rows: Sequence[Row]) -> bool:
    """Return whether the evaluated model decides, because it has the token `<cc>`."""
    return any(row.p_cc is not None for row in rows)


def results(evaluated: Sequence[Path]) -> list[Row]:
    """Return the rows of all runs, except those of quiet places.

    If several runs have a row for the same blank, only the row of the last run is returned.
    """
    rows = [row for folder in evaluated for row in table.read(folder / record.RESULTS) if not row.quiet]
    return list({row.id: row for row in rows}.values())


def has_enough_data(rows: Sequence[Row]) -> bool:
    """Return whether there are enough blanks, from several repositories, to fit and evaluate a gate."""
    return len(rows) >= MIN_BLANKS and len({row.repository for row in rows}) > 1


def fit(rows: Sequence[Row], features: Sequence[Feature]) -> Gate:
    """Fit a gate and its thresholds on results of `eval`."""
    known = [row.known for row in rows]
    if decides(rows):
        name: Name = "token" if tuple(features) == GATES["token"] else "hybrid"
        return fit_gate(name, features, known, [row.gain for row in rows], MAX_RETRIEVAL_SHARE)
    gains, helped = _saved_and_helped(rows)
    return fit_gate("evidence", features, known, gains.tolist(), MAX_RETRIEVAL_SHARE, helped.tolist())


def _saved_and_helped(rows: Sequence[Row]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return, for each row, the nats that retrieval saved and whether retrieval helped, both with shape (rows,)."""
    return np.array([row.saved for row in rows], float), np.array([row.helped for row in rows], bool)


def best_gate(rows: Sequence[Row]) -> str:
    """Return the name of the simplest gate with the feature `token` whose AUC is close to the greatest AUC.

    AUC, the area under the ROC curve, is measured on held-out repositories. A gate with more features may have the
    greatest AUC by chance. Therefore all gates within one standard error of the greatest AUC count as equal, and the
    one of them with the fewest features is returned (the one-standard-error rule of Breiman et al., 1984).
    """
    positive = np.array([row.gain > 0 for row in rows])
    probabilities = {
        name: held_out(rows, features)[0]
        for name, features in GATES.items()
        if "token" in features and has_features(rows, features)
    }
    areas = {name: auc(p, positive) for name, p in probabilities.items()}
    highest = probabilities[max(areas, key=lambda name: areas[name])]

    def is_close(name: str) -> bool:
        deficit = bootstrap(
            lambda chosen: auc(highest[chosen], positive[chosen]) - auc(probabilities[name][chosen], positive[chosen]),
            len(rows),
        )
        return deficit.value <= (deficit.high - deficit.low) / (2 * 1.96)

    return min(filter(is_close, areas), key=lambda name: (len(GATES[name]), -areas[name]))


def has_features(rows: Sequence[Row], features: Sequence[Feature]) -> bool:
    """Return whether all of `features` are known in every row."""
    return not np.isnan(values_of([row.known for row in rows], features)).any()


def held_out(rows: Sequence[Row], features: Sequence[Feature]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return two arrays with shape (rows,). Each row is judged by gates that were not fitted on its repository.

    There is one such gate for each split of the repositories. The first array has the mean probability of these gates,
    and the second the share of these gates that retrieve at the row.
    """
    p, chosen = np.zeros(len(rows)), np.zeros(len(rows))
    for seed in range(SPLITS):
        first = halves([row.repository for row in rows], seed)
        for half in (first, ~first):
            gate = fit([row for row, other in zip(rows, half, strict=True) if not other], features)
            own = [row.known for row, other in zip(rows, half, strict=True) if other]
            probabilities = np.array([gate.probability(known) for known in own], float)
            p[half] += probabilities / SPLITS
            chosen[half] += (probabilities > [gate.threshold(known.kind) for known in own]) / SPLITS
    return p, chosen


def halves(repositories: Sequence[str], seed: int) -> NDArray[np.bool_]:
    """Split the repositories at random into two halves. Return which rows belong to the first half, shape (rows,).

    `repositories` has the repository of each row. All rows of a repository are in the same half, and each half has
    about half of the rows.
    """
    names, counts = np.unique(repositories, return_counts=True)
    sizes, first = [0, 0], set()
    for number in np.random.default_rng(seed).permutation(len(names)):
        half = int(sizes[1] < sizes[0])
        sizes[half] += int(counts[number])
        if half == 0:
            first.add(str(names[number]))
    return np.array([repository in first for repository in repositories])


def evaluate(rows: Sequence[Row], p: NDArray[np.float64], chosen: NDArray[np.float64]) -> dict[str, Any]:
    """Return the metrics of a gate: AUC, calibration error, and edit similarity compared with never and always.

    `p` and `chosen` are the result of `held_out`, shape (rows,). AUC is the area under the ROC curve, for all blanks
    and for each kind. A figure with three numbers is [value, low, high], with a 95% bootstrap interval over blanks.
    """
    gains = np.array([row.gain for row in rows])
    kinds = np.array([row.kind for row in rows])
    without = np.array([row.es_without for row in rows])
    area = bootstrap(lambda sample: auc(p[sample], gains[sample] > 0), len(rows))
    areas = {str(kind): auc(p[kinds == kind], gains[kinds == kind] > 0) for kind in np.unique(kinds)}
    difference = (chosen - 1) * gains
    return {
        "auc": _figure(area.value, area.low, area.high),
        "auc_by_kind": {kind: round(value, 4) for kind, value in areas.items() if not math.isnan(value)},
        "calibration_error": calibration_error(p, gains > 0),
        "never": float(without.mean()),
        "always": float((without + gains).mean()),
        "selected": float((without + chosen * gains).mean()),
        "share": float(chosen.mean()),
        "against_always": _figure(*asdict(mean(difference)).values()),
        "p_against_always": paired_p(difference),
    }


def evaluate_nats(rows: Sequence[Row], p: NDArray[np.float64], chosen: NDArray[np.float64]) -> dict[str, Any]:
    """Return the metrics of a gate: AUC for `helped`, calibration error, and the nats that retrieval saves per blank.

    The arguments are as in `evaluate`. `always`, `selected` and `oracle` are the nats saved per blank by always
    retrieving, by the gate, and by retrieving exactly where nats are saved. `helped` is the share of the blanks at
    which retrieval helps, and `share` the share at which the gate retrieves. `right_abstentions` is the share of the
    gate's abstentions at which retrieval does not help. `harm` is the mean number of nats lost per retrieval of the
    gate at a blank at which retrieval does not help.
    """
    gains, helped = _saved_and_helped(rows)
    kinds = np.array([row.kind for row in rows])
    area = bootstrap(lambda sample: auc(p[sample], helped[sample]), len(rows))
    areas = {str(kind): auc(p[kinds == kind], helped[kinds == kind]) for kind in np.unique(kinds)}
    useless = chosen * ~helped
    return {
        "auc": _figure(area.value, area.low, area.high),
        "auc_by_kind": {kind: round(value, 4) for kind, value in areas.items() if not math.isnan(value)},
        "calibration_error": calibration_error(p, helped),
        "helped": float(helped.mean()),
        "always": float(gains.mean()),
        "selected": float((chosen * gains).mean()),
        "oracle": float(np.maximum(gains, 0).mean()),
        "share": float(chosen.mean()),
        "right_abstentions": float(((1 - chosen) * ~helped).sum() / max((1 - chosen).sum(), 1e-9)),
        "harm": float(-(useless * gains).sum() / max(useless.sum(), 1e-9)),
    }


def report_lines(evaluations: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the metrics of the gates as the lines of a table.

    For evidence gates, the columns `nats`, `always` and `oracle` have the nats saved per blank: by the gate, by always
    retrieving, and by perfect decisions.
    """
    if any("never" in row for row in evaluations.values()):
        return _similarity_lines(evaluations)
    output = [
        f"{'gate':18}{'AUC':>22}{'retrieves':>11}{'nats':>8}{'always':>8}{'oracle':>8}{'harm':>8}  right to abstain"
    ]
    for name, row in evaluations.items():
        area = "{:.3f} [{:.3f}, {:.3f}]".format(*row["auc"])
        output.append(
            f"{name:18}{area:>22}{row['share']:11.0%}{row['selected']:8.2f}{row['always']:8.2f}"
            f"{row['oracle']:8.2f}{row['harm']:8.2f}{row['right_abstentions']:11.0%}"
        )
    return output


def _similarity_lines(evaluations: Mapping[str, Mapping[str, Any]]) -> list[str]:
    output = [f"{'gate':16}{'AUC':>22}{'retrieves':>11}{'ES':>8}{'never':>8}{'always':>8}  against always"]
    for name, row in evaluations.items():
        area, against = ("{:.3f} [{:.3f}, {:.3f}]", "{:+.2f} [{:+.2f}, {:+.2f}]")
        output.append(
            f"{name:16}{area.format(*row['auc']):>22}{row['share']:11.0%}{row['selected']:8.2f}{row['never']:8.2f}"
            f"{row['always']:8.2f}  {against.format(*row['against_always'])}, p = {row['p_against_always']:.3f}"
        )
    return output


def _figure(*values: float) -> list[float]:
    return [round(value, 4) for value in values]
