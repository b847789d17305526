"""Step 8, `train gate`: a decision for generators that have no token for it, and the baseline that the token must beat.

A logistic regression of a few hundred bytes on what is known when the decision is due: the entropy and the top
probability of the first token to be generated (compare CARD, arXiv 2406.10263), the similarity of the best chunk that
retrieval found meanwhile, and how it is asked (line or block). Three gates are fitted on the training labels and
compared on validation: the token alone, the scores alone, and both; boosted trees have no advantage on five features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policy.evaluation.statistics import auc, calibration_error

from . import manifest
from .fitting import best_threshold, logistic, sigmoid
from .label import Label, load_labels

FEATURES = ("entropy", "top", "score", "block")
GATES: Mapping[str, tuple[str, ...]] = {
    "scores": ("score",),
    "engine": ("entropy", "top", "block"),
    "engine+scores": FEATURES,
    "token": ("token",),
    "token+scores": ("token", "score"),
    "all": (*FEATURES, "token"),
}


@dataclass(frozen=True, slots=True)
class Gate:
    """Standardised features, weights (one more than features: the offset), and the threshold that was fitted."""

    features: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    threshold: float = 1.0

    def p_retrieve(self, values: Mapping[str, float]) -> float:
        """Probability that retrieval helps, from named features."""
        row = np.array([[values[name] for name in self.features]])
        return float(self.probabilities(row)[0])

    def probabilities(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same for rows of features in their order, (rows, features) to (rows,)."""
        scaled = (rows - np.array(self.means)) / np.array(self.scales)
        return sigmoid(scaled @ np.array(self.weights[:-1]) + self.weights[-1])


def run(out: Path, labels: Path, finetuned: Path) -> None:
    """Fit and compare the gates; those with the token only where `finetuned` has P(`<cc>`) for the labels.

    P(`<cc>`) exists for validation alone (the model has seen the training labels), so gates with it are fitted and
    judged on halves of validation in turn.
    """
    manifest.begin(out, "gate", {"labels": labels}, {"finetuned": bool(manifest.read(finetuned).get("done"))})
    train = [label for label in load_labels(labels / "train.jsonl") if label.tokens]
    valid = [label for label in load_labels(labels / "valid.jsonl") if label.tokens]
    if min(len(train), len(valid)) < 10:
        raise manifest.TrainingError(f"too few labels in {labels} to fit a gate: {len(train)} and {len(valid)}")
    token = _token_probabilities(finetuned / "valid.jsonl")
    report: dict[str, dict[str, float]] = {}
    for name, features in GATES.items():
        if "token" not in features:
            gate = fit(train, features, {})
            (out / f"{name}.json").write_text(json.dumps(_plain(gate), indent=1) + "\n", "utf-8")
            report[name] = judge(gate.probabilities(table(valid, features, {})), valid)
        elif token:
            seen = [label for label in valid if label.id in token]
            report[name] = judge(cross_fit(seen, features, token), seen)
            (out / f"{name}.json").write_text(json.dumps(_plain(fit(seen, features, token)), indent=1) + "\n", "utf-8")
    manifest.finish(out, gates=report, counts={"train": len(train), "valid": len(valid)})


def fit(labels: Sequence[Label], features: Sequence[str], token: Mapping[str, float]) -> Gate:
    """A gate from labels, its threshold fitted on them too (at most 60% retrieved)."""
    rows = table(labels, features, token)
    means, scales = rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-6)
    gains = np.array([label.gain for label in labels])
    weights = logistic((rows - means) / scales, gains > 0)
    gate = Gate(tuple(features), tuple(means.tolist()), tuple(scales.tolist()), tuple(weights.tolist()))
    threshold = best_threshold(gate.probabilities(rows).tolist(), gains.tolist())
    return Gate(gate.features, gate.means, gate.scales, gate.weights, threshold)


def cross_fit(labels: Sequence[Label], features: Sequence[str], token: Mapping[str, float]) -> NDArray[np.float64]:
    """Probabilities of each label from a gate that was fitted on the other half of them."""
    p = np.empty(len(labels))
    for half in (0, 1):
        gate = fit([label for number, label in enumerate(labels) if number % 2 != half], features, token)
        p[half::2] = gate.probabilities(table(labels[half::2], features, token))
    return p


def table(labels: Sequence[Label], features: Sequence[str], token: Mapping[str, float]) -> NDArray[np.float64]:
    """Feature values, (labels, features); `token` is P(`<cc>`) by id, taken as log-odds."""

    def value(label: Label, feature: str) -> float:
        if feature == "token":
            p = min(max(token[label.id], 1e-9), 1 - 1e-9)
            return float(np.log(p / (1 - p)))
        if feature == "block":
            return float(label.kind in {"chunk", "function"})
        return float(getattr(label, feature))

    return np.array([[value(label, feature) for feature in features] for label in labels])


def judge(p: NDArray[np.float64], labels: Sequence[Label]) -> dict[str, float]:
    """AUC, calibration error, and ES at the best threshold against never and always."""
    gains = np.array([label.gain for label in labels])
    without = float(np.mean([label.es_without for label in labels]))
    chosen = p > best_threshold(p.tolist(), gains.tolist())
    return {
        "auc": auc(p, gains > 0),
        "calibration_error": calibration_error(p, gains > 0),
        "never": without,
        "always": without + float(gains.mean()),
        "selected": without + float((gains * chosen).mean()),
        "share": float(chosen.mean()),
    }


def _token_probabilities(path: Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return {row["id"]: row["p"] for row in rows}


def _plain(gate: Gate) -> dict[str, object]:
    return {name: getattr(gate, name) for name in ("features", "means", "scales", "weights", "threshold")}
