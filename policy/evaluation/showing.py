"""Compute how many suggestions are shown, how many of them are right, and at how many quiet places none is shown.

The suggestion at a blank is the completion that the default policy serves. An editor shows a suggestion if the
estimated probability that the user keeps it is at least the showing threshold. The figures are computed for each value
of the setting `suggest`, which selects a threshold of `policy.gating.keep`, and as a curve over all thresholds.
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
    """The figures of one value of `suggest`. Shares are in [0, 1]. A share of an empty set is NaN.

    `shown` is the share of the blanks, other than quiet places, at which a text is shown. `precision` is the share of
    the shown texts that are exactly correct to the end of the line, and `found` the share of the correct texts that are
    shown. `kept` is the share of the shown characters that are kept. `breaks` is the number of shown texts that add a
    syntax error. `quiet` is the share of the quiet places at which no text is shown.
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
    """The figures of all values of `suggest`.

    `places` is the number of blanks, of which `quiet_places` are quiet places. `curve` has a point (share of all blanks
    at which a text is shown, precision) for each threshold. `estimated` says whether the threshold applies to the
    estimate in the model's metadata. Otherwise it applies to the mean probability of the tokens.
    """

    places: int
    quiet_places: int
    levels: tuple[Level, ...]
    curve: tuple[tuple[float, float], ...]
    estimated: bool


def compute(rows: Sequence[Row], gates: Sequence[Gate], keep: Keep | None) -> ShownFigures | None:
    """Return the figures, or None if an earlier version wrote the rows, without the columns of the shown texts."""
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
    """Return what an editor shows at each blank under the default policy."""
    table = Table.of(rows)
    primary = next(iter(policies.scores(table, gates)))
    choice = next(each for each in policies.as_served(table, gates) if each.name.startswith(primary))
    return [
        cast("Shown", row.shown_with if weight > 0.5 else row.shown_without)
        for row, weight in zip(rows, choice.weights, strict=True)
    ]


def probability(text: Shown, keep: Keep | None) -> float:
    """Return the probability that the user keeps a text, or 0 for an empty text.

    The result is the estimate of `keep`. If `keep` is None, it is the geometric mean of the probabilities of the text's
    tokens.
    """
    if not text.text or not text.values:
        return 0.0
    if keep is None:
        return math.exp(-text.values["mean"])
    return keep.probability(cast("dict[Feature, float]", text.values))


def level(name: str, texts: Sequence[Shown], quiet: NDArray[np.bool_], shows: NDArray[np.bool_]) -> Level:
    """Return the figures for showing only the texts for which `shows` is true. The arrays have shape (blanks,)."""
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
    """Return a point for each n: what happens if the n texts with the highest `p` are shown.

    A point has the share of the blanks at which a text is shown, and the share of the shown texts that are right.
    """
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
