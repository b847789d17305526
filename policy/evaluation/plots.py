"""Draw the plots of a report, which correspond to the paper's figures. Each plot is a PNG.

The module imports matplotlib only when it draws, with a backend that needs no display.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from policy.extras import advice

from .figures import Figures, expected_time
from .showing import ShownFigures
from .table import Row, Table, groups
from .task import EvaluationError

INK, SOFT = "#22303c", "#b8c4ce"
COLORS = {
    "selective": "#0b6e99",
    "selective, token": "#64b1d4",
    "trial retrieval": "#d9730d",
    "trial generation": "#6940a5",
    "random": "#8a8f98",
    "oracle": "#0f7b6c",
    "gain": "#0f7b6c",
    "harm": "#c4554d",
}


def all_plots(rows: Sequence[Row], figures: Figures, shown: ShownFigures | None = None) -> dict[str, tuple[str, bytes]]:
    """Return the caption and the PNG of each plot, by its name. Raises `EvaluationError` without matplotlib."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError as missing:
        raise EvaluationError(f"matplotlib is not installed. {advice('eval')}") from missing
    mpl.use("Agg")
    drawn: dict[str, tuple[str, Callable[[Any], None]]] = {
        "gain": ("Change in edit similarity from retrieval, per blank", lambda axes: _gain(axes, rows)),
        "threshold": (
            "Edit similarity, retrieval and latency against the threshold",
            lambda axes: _sweep(axes, figures),
        ),
        "abstention": ("Precision of abstentions", lambda axes: _abstention(axes, figures)),
        "calibration": ("Calibration: predicted and observed share", lambda axes: _calibration(axes, figures)),
        "budget": ("All policies at every budget", lambda axes: _budget(axes, figures)),
    }
    if shown and shown.curve:
        drawn["shown"] = ("Shown texts: how many are right", lambda axes: _shown(axes, shown))
    return {name: (caption, _draw(caption, draw)) for name, (caption, draw) in drawn.items()}


def _draw(caption: str, draw: Callable[[Any], None]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(caption, loc="left", fontsize=11, color=INK, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6eaee", linewidth=0.8)
    axes.set_axisbelow(True)
    draw(axes)
    buffer = io.BytesIO()
    # The metadata would contain matplotlib's version, and the same figures should give the same file in all versions.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _gain(axes: Any, rows: Sequence[Row]) -> None:
    """Draw how many blanks have which gain, as bars that are stacked by the kind of the blank.

    A gain of exactly 0 has its own bar, because it is the most frequent value.
    """
    from matplotlib.patches import Patch

    steps = range(-5, 6)
    colors = [COLORS["harm"] if step < 0 else COLORS["gain"] if step > 0 else SOFT for step in steps]
    labels = [f"{20 * step:+d}".replace("-", "−") if step else "0" for step in steps]
    kinds = groups(rows, "kind")
    shades = np.linspace(0.95, 0.35, len(kinds))
    bottom = np.zeros(len(steps))
    for shade, found in zip(shades, kinds.values(), strict=True):
        gain = Table.of(found).gain
        places = np.sign(gain) * np.ceil(np.abs(gain) / 20)
        height = np.array([100 * (places == step).sum() / len(rows) for step in steps])
        axes.bar(labels, height, bottom=bottom, color=colors, alpha=shade)
        bottom = bottom + height
    axes.set_xlabel("edit similarity with minus without retrieved code (each bar: up to the label, away from zero)")
    axes.set_ylabel("% of blanks")
    handles = [Patch(color=INK, alpha=shade, label=kind) for shade, kind in zip(shades, kinds, strict=True)]
    axes.legend(handles=handles, frameon=False, fontsize=8)


def _sweep(axes: Any, figures: Figures) -> None:
    thresholds = [point.threshold for point in figures.sweep]
    color = COLORS[figures.primary]
    axes.plot(thresholds, [point.value for point in figures.sweep], color=color, label="edit similarity")
    # A best threshold of 0 (always retrieve) or 1 (never retrieve) may be far outside the range of the scores.
    best = min(max(figures.best.threshold, thresholds[0]), thresholds[-1])
    axes.axvline(best, color=SOFT, linestyle=":", label=f"best: {figures.best.threshold:.2f}")
    axes.set_xlabel(f"threshold of {figures.primary}")
    axes.set_ylabel("edit similarity")
    right = axes.twinx()
    right.spines["top"].set_visible(False)
    latency = [expected_time(figures.times, point.share) for point in figures.sweep]
    if any(map(math.isnan, latency)):
        right.plot(thresholds, [100 * point.share for point in figures.sweep], "--", color=INK, label="% that retrieve")
        right.set_ylabel("% of requests that retrieve")
        right.set_ylim(0, 105)
    else:
        right.plot(thresholds, latency, "--", color=INK, label="latency")
        right.set_ylabel("mean latency (ms)")
    lines = [*axes.get_lines(), *right.get_lines()]
    axes.legend(lines, [str(line.get_label()) for line in lines], frameon=False, fontsize=8, loc="best")


def _abstention(axes: Any, figures: Figures) -> None:
    points = [point for point in figures.sweep if not math.isnan(point.abstention_precision)]
    shares = [100 * (1 - point.share) for point in points]
    right, color = [point.abstention_precision for point in points], COLORS[figures.primary]
    axes.plot(shares, right, "o-", markersize=3, color=color, label=figures.primary)
    axes.axhline(1 - figures.helped, color=COLORS["random"], linestyle="--", label="abstaining at random")
    axes.set_xlabel("% of requests that abstain")
    axes.set_ylabel("abstentions that retrieval would not have improved")
    axes.set_ylim(min(0.5, 1 - figures.helped - 0.1, min(right, default=1.0) - 0.02), 1.02)
    axes.legend(frameon=False, fontsize=8)


def _shown(axes: Any, figures: ShownFigures) -> None:
    color = COLORS["selective"]
    axes.plot([100 * share for share, _ in figures.curve], [right for _, right in figures.curve], color=color)
    for each in figures.levels:
        if not math.isnan(each.precision.value):
            axes.axhline(each.precision.value, color=SOFT, linestyle=":")
            axes.annotate(f" {each.name}", (0, each.precision.value), fontsize=7, color=INK, va="bottom")
    axes.set_xlabel("% of places at which a text is shown")
    axes.set_ylabel("share of shown texts that are correct to the line's end")
    axes.set_ylim(0, 1.02)


def _calibration(axes: Any, figures: Figures) -> None:
    axes.plot([0, 1], [0, 1], "--", color=SOFT, label="perfect")
    predicted = [each.predicted for each in figures.calibration]
    observed = [each.observed for each in figures.calibration]
    sizes = [20 + 300 * each.count / figures.blanks for each in figures.calibration]
    color, error = COLORS[figures.primary], figures.calibration_error.value
    axes.plot(predicted, observed, "-", color=color, label=f"{figures.primary}, error {error:.3f}")
    axes.scatter(predicted, observed, s=sizes, color=color)
    for each in figures.calibration:
        axes.annotate(
            str(each.count), (each.predicted, each.observed), (9, 9), textcoords="offset points", fontsize=7, color=INK
        )
    axes.set_xlabel("the gate's probability" if figures.primary == "selective" else "similarity of the best chunk")
    axes.set_ylabel("share in which retrieval helped")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.legend(frameon=False, fontsize=8)


def _budget(axes: Any, figures: Figures) -> None:
    for name, points in figures.curves.items():
        shares, values = [100 * share for share, _ in points], [value for _, value in points]
        style = "--" if name in {"random", "oracle"} else "-"
        axes.plot(
            shares, values, style, color=COLORS[name], label=name, linewidth=2 if name == figures.primary else 1.3
        )
    for placed in figures.served:
        if placed.name.startswith(figures.primary):
            axes.plot([100 * placed.share], [placed.es.value], "o", color=COLORS[figures.primary])
            axes.annotate(f" {placed.name}", (100 * placed.share, placed.es.value), fontsize=7, color=INK, va="top")
    axes.set_xlabel("% of requests that retrieve")
    axes.set_ylabel("edit similarity")
    axes.legend(frameon=False, fontsize=8)
