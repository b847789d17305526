"""Compare two runs over the same blanks: what changed, where, and whether the change is significant.

Blanks are paired by their ids. If two runs have different truths for an id, they use different data and cannot be
compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import statistics
from .statistics import Estimate
from .table import Row
from .task import EvaluationError

FIGURES = ("es_without", "es_with", "em_without", "em_with", "f1_without", "f1_with")


@dataclass(frozen=True, slots=True)
class MetricChange:
    """A figure of two runs: its mean before and after, and their difference with an interval and a p-value."""

    figure: str
    before: float
    after: float
    difference: Estimate
    p: float


@dataclass(frozen=True, slots=True)
class ChangedCompletion:
    """A blank whose completion changed, with its edit similarity before and after.

    `figure` is the name of the column with the edit similarity: "es_without" or "es_with".
    """

    id: str
    figure: str
    before: float
    after: float
    text_before: str
    text_after: str


@dataclass(frozen=True, slots=True)
class Difference:
    """All differences of two runs. `only_before` and `only_after` are the ids of blanks that only one run has."""

    blanks: int
    changes: tuple[MetricChange, ...]
    changed: tuple[ChangedCompletion, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]

    def drops(self, band: float) -> tuple[MetricChange, ...]:
        """Return the edit similarity figures that fell by more than `band` points."""
        return tuple(
            change for change in self.changes if change.figure.startswith("es_") and change.difference.value < -band
        )


def compare(before: Sequence[Row], after: Sequence[Row]) -> Difference:
    """Return the differences of two runs over their common blanks.

    Raises `EvaluationError` if they have no blank in common or use different data.
    """
    left, right = {row.id: row for row in before}, {row.id: row for row in after}
    common = [name for name in left if name in right]
    if not common:
        raise EvaluationError("the two runs have no blank in common")
    if other := [name for name in common if left[name].truth != right[name].truth]:
        raise EvaluationError(f"the two runs expect different texts at {other[0]}: they use different data")
    changes = []
    for figure in FIGURES:
        factor = 100.0 if figure.startswith("em_") else 1.0
        a, b = (factor * np.array([getattr(rows[name], figure) for name in common], float) for rows in (left, right))
        difference = statistics.mean(b - a)
        changes.append(MetricChange(figure, float(a.mean()), float(b.mean()), difference, statistics.paired_p(b - a)))
    changed = [
        ChangedCompletion(name, branch, float(a), float(b), str(text_a), str(text_b))
        for name in common
        for branch, text in (("es_without", "without"), ("es_with", "with_"))
        if (text_a := getattr(left[name], text)) != (text_b := getattr(right[name], text))
        for a, b in [(getattr(left[name], branch), getattr(right[name], branch))]
    ]
    changed.sort(key=lambda each: each.after - each.before)
    return Difference(
        len(common),
        tuple(changes),
        tuple(changed),
        tuple(name for name in left if name not in right),
        tuple(name for name in right if name not in left),
    )


def report_lines(difference: Difference, most: int = 20) -> list[str]:
    """Return a difference as lines of text.

    The lines list up to `most` blanks that became worse and up to `most` that became better, the largest changes first.
    """
    output = [f"{difference.blanks} blanks in both runs, {len(difference.changed)} completions changed"]
    for label, names in (("first", difference.only_before), ("second", difference.only_after)):
        if names:
            output.append(f"{len(names)} blanks are only in the {label} run, for example {names[0]}")
    output.append(f"{'':12}{'before':>8}{'after':>8}  difference")
    for change in difference.changes:
        verdict = "significant" if change.p < 0.05 else "not significant"
        output.append(
            f"{change.figure:12}{change.before:8.2f}{change.after:8.2f}  {change.difference.value:+.2f} "
            f"[{change.difference.low:+.2f}, {change.difference.high:+.2f}], p = {change.p:.3f}, {verdict}"
        )
    for title, chosen in (
        ("worse", [each for each in difference.changed if each.after < each.before][:most]),
        ("better", [each for each in reversed(difference.changed) if each.after > each.before][:most]),
    ):
        if chosen:
            output.append(f"{title}:")
        for each in chosen:
            output.append(f"  {each.before:6.1f} → {each.after:5.1f}  {each.figure[3:]:8}{each.id}")
            output.append(f"      - {each.text_before!r}")
            output.append(f"      + {each.text_after!r}")
    return output
