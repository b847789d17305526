"""Compute how many suggestions are shown, how many of them are right, and how often a place that needs none has none.

Each blank counts with the completion of the served policy. The settings of `policy.gating.keep` are compared, and all
other thresholds form a curve: the texts that the user most probably keeps are shown first.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast, get_args

import numpy as np

from policy.gating.gate import Gate
from policy.gating.keep import Feature, Keep, Suggest

from . import policies, statistics
from .shown import Shown
from .statistics import Estimate
from .table import Row, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Level:
    """The figures of one setting: shares in [0, 1], NaN if there is nothing to count.

    `shown` is the share of the blanks at which something is shown, `precision` the share of the shown texts that are
    exactly right to the end of the line, `found` the share of the right texts that are shown. `kept` is the share of
    the shown characters that are kept. `breaks` counts shown texts that add a syntax error. `quiet` is the share of the
    places where nothing belongs at which nothing is shown.
    """

    name: str
    shown: float
    precision: Estimate
    found: float
    kept: float
    breaks: int
    quiet: float


@dataclass(frozen=True, slots=True)
class ShownFigures:
    """`places` counts blanks and places where nothing belongs (`quiet_places`); `curve` has (share shown, precision).

    `estimated`: the curve is by the estimate of the model, otherwise by the mean probability of the tokens.
    """

    places: int
    quiet_places: int
    levels: tuple[Level, ...]
    curve: tuple[tuple[float, float], ...]
    estimated: bool


def compute(rows: Sequence[Row], gates: Sequence[Gate], keep: Keep | None) -> ShownFigures | None:
    """Return the figures, or None if the results do not contain what was shown, like those of an earlier version."""
    known = [row for row in rows if row.shown_without is not None and row.shown_with is not None]
    if not known:
        return None
    texts = served(known, gates)
    p = np.array([probability(text, keep) for text in texts])
    names: Sequence[Suggest] = get_args(Suggest) if keep else ("eager",)
    quiet = np.array([row.quiet for row in known])
    levels = []
    for name in names:
        least = {"eager": 0.0, "balanced": keep.balanced, "careful": keep.careful}[name] if keep else 0.0
        levels.append(level(name, texts, quiet, p >= least))
    return ShownFigures(len(known), int(quiet.sum()), tuple(levels), curve(texts, p), keep is not None)


def served(rows: Sequence[Row], gates: Sequence[Gate]) -> list[Shown]:
    """Return what the default policy shows at each blank."""
    table = Table.of(rows)
    primary = next(iter(policies.scores(table, gates)))
    choice = next(each for each in policies.as_served(table, gates) if each.name.startswith(primary))
    return [
        cast("Shown", row.shown_with if weight > 0.5 else row.shown_without)
        for row, weight in zip(rows, choice.weights, strict=True)
    ]


def probability(text: Shown, keep: Keep | None) -> float:
    """Return the probability that a text is kept, by the estimate or by its tokens; 0 for an empty text."""
    if not text.text or not text.values:
        return 0.0
    if keep is None:
        return math.exp(-text.values["mean"])
    return keep.probability(cast("dict[Feature, float]", text.values))


def level(name: str, texts: Sequence[Shown], quiet: NDArray[np.bool_], shows: NDArray[np.bool_]) -> Level:
    """Return the figures if the texts are shown for which `shows` is true. Arrays have shape (blanks,)."""
    there = np.array([bool(text.text) for text in texts]) & shows
    right = np.array([text.right for text in texts])
    kept = sum(text.kept for text, each in zip(texts, there, strict=True) if each)
    written = sum(len(text.text) for text, each in zip(texts, there, strict=True) if each)
    return Level(
        name,
        shown=float(there[~quiet].mean()) if (~quiet).any() else math.nan,
        precision=statistics.mean(right[there]),
        found=float(there[right].mean()) if right.any() else math.nan,
        kept=kept / written if written else math.nan,
        breaks=sum(text.breaks for text, each in zip(texts, there, strict=True) if each),
        quiet=float((~there[quiet]).mean()) if quiet.any() else math.nan,
    )


def curve(texts: Sequence[Shown], p: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    """Return a pair for each number of likeliest texts: their share of all blanks, and the share that is right."""
    order = [place for place in np.argsort(-p, kind="stable") if texts[place].text]
    right = np.cumsum([texts[place].right for place in order])
    return tuple((count / len(texts), float(right[count - 1] / count)) for count in range(1, len(order) + 1))


def to_csv(figures: ShownFigures) -> str:
    """Return the curve as CSV."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("shown", "precision"))
    writer.writerows((f"{shown:.4f}", f"{precision:.4f}") for shown, precision in figures.curve)
    return buffer.getvalue()
