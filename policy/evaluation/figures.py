"""Compute the figures of a report: numbers with their intervals, without prose.

The figures depend only on the stored rows and times of a run, so they can be computed again at any time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy.gating.gate import Gate

from . import policies, statistics
from .latency import TimedRequest
from .policies import Choice, Point
from .statistics import Bin, Estimate
from .table import Row, Table, groups


@dataclass(frozen=True, slots=True)
class PolicyFigures:
    """The mean figures of a policy: exact match (`em`), edit similarity (`es`) and F1 of the identifiers (`f1`), 0–100.

    `share` is the share of the requests for which the policy retrieves. `against` is its edit similarity minus that of
    a reference policy, and `p` is the p-value of this difference, paired by blank. `abstention_precision` is the share
    of its abstentions that retrieval would not have improved.
    """

    name: str
    share: float
    em: Estimate
    es: Estimate
    f1: Estimate
    against: Estimate
    p: float
    abstention_precision: float


@dataclass(frozen=True, slots=True)
class Signal:
    """A score, and how well it predicts that retrieval helps: the area under its ROC curve (AUC)."""

    name: str
    auc: Estimate

    @property
    def informative(self) -> bool:
        """Whether the whole 95% interval is above 0.5, the AUC of chance."""
        return self.auc.low > 0.5


@dataclass(frozen=True, slots=True)
class PolicyLatency:
    """The latency of one policy in milliseconds: the mean of each stage, and the mean and quantiles of whole requests.

    Stages may overlap. `share` is the share of the requests that retrieve. `speed_up` is the mean time of the policy
    `always` divided by that of this policy, minus one (0.28 is 28%).
    """

    policy: str
    requests: int
    share: float
    decision: float
    retrieval: float
    generation: float
    mean: float
    p50: float
    p95: float
    speed_up: Estimate


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of a report.

    `helped`, `harmed` and `unchanged` are the shares of the blanks whose edit similarity retrieval raises, lowers, and
    does not change. `gain` is the mean gain in edit similarity from retrieval, and `gain_p` is the p-value of the
    hypothesis that this mean is zero. `primary` is the signal that serving uses: "selective" or "trial retrieval".
    `constant` says whether this signal is the same for all blanks. `served` has the policies with the thresholds that
    serving uses. `equal` has the policies at one budget: each retrieves for the share `budget` of the requests. `sweep`
    has the results at many thresholds of the signal `primary`, and `best` has those at the best threshold for these
    blanks. `tests` has the number of tested blanks, and the percentages that pass without and with retrieval.
    `untested` is the number of blanks whose tests could not run.
    """

    blanks: int
    kinds: Mapping[str, int]
    helped: float
    harmed: float
    unchanged: float
    gain: Estimate
    gain_p: float
    primary: str
    constant: bool
    served: tuple[PolicyFigures, ...]
    budget: float
    equal: tuple[PolicyFigures, ...]
    signals: tuple[Signal, ...]
    calibration: tuple[Bin, ...]
    calibration_error: Estimate
    sweep: tuple[Point, ...]
    best: Point
    curves: Mapping[str, tuple[tuple[float, float], ...]]
    by_kind: Mapping[str, tuple[PolicyFigures, ...]]
    by_repository: Mapping[str, tuple[int, Estimate, float]]
    times: tuple[PolicyLatency, ...]
    tests: tuple[int, Estimate, Estimate]
    untested: int


def compute(rows: Sequence[Row], gates: Sequence[Gate], times: Sequence[TimedRequest] = ()) -> Figures:
    """Compute all figures. `rows` must not be empty."""
    table = Table.of(rows)
    gain = table.gain
    scores = policies.scores(table, gates)
    primary = next(iter(scores))
    score = scores[primary]
    served = policies.as_served(table, gates)
    own = next(choice for choice in served if choice.name.startswith(primary))
    budget = own.share if 0 < own.share < 1 else 0.5
    probabilities = np.clip(score, 0, 1)
    unit = Table.of(rows, "ut")
    return Figures(
        blanks=len(rows),
        kinds={kind: len(found) for kind, found in groups(rows, "kind").items()},
        helped=float((gain > 0).mean()),
        harmed=float((gain < 0).mean()),
        unchanged=float((gain == 0).mean()),
        gain=statistics.mean(gain),
        gain_p=statistics.paired_p(gain),
        primary=primary,
        constant=bool(np.ptp(score) == 0),
        served=policy_figures(rows, served, "never"),
        budget=budget,
        equal=policy_figures(rows, policies.at_budget(table, budget, gates), primary),
        signals=tuple(Signal(name, auc_estimate(values, gain > 0)) for name, values in scores.items()),
        calibration=tuple(statistics.calibration(probabilities, gain > 0)),
        calibration_error=statistics.bootstrap(
            lambda chosen: statistics.calibration_error(probabilities[chosen], gain[chosen] > 0), len(rows)
        ),
        sweep=tuple(policies.sweep(table, score, policies.thresholds_across(score))),
        best=policies.best_threshold(table, score),
        curves=curves(table, gates),
        by_kind={kind: _by_kind(found, gates) for kind, found in groups(rows, "kind").items()},
        by_repository={name: _repository(found) for name, found in groups(rows, "repository").items()},
        times=tuple(latencies(times)),
        tests=(len(unit), statistics.mean(unit.without), statistics.mean(unit.with_)),
        untested=sum(bool(row.tests_without) and not row.tested for row in rows),
    )


def policy_figures(rows: Sequence[Row], choices: Sequence[Choice], reference: str) -> tuple[PolicyFigures, ...]:
    """Return the mean figures of `choices`, and their differences in edit similarity from the policy `reference`."""
    tables = {metric: Table.of(rows, metric) for metric in ("em", "es", "f1")}
    base = policies.values(tables["es"], next(choice for choice in choices if choice.name == reference))
    compared = []
    for choice in choices:
        means = {metric: statistics.mean(policies.values(table, choice)) for metric, table in tables.items()}
        difference = policies.values(tables["es"], choice) - base
        precision = policies.abstention_precision(tables["es"], choice)
        against, p = statistics.mean(difference), statistics.paired_p(difference)
        compared.append(
            PolicyFigures(choice.name, choice.share, **means, against=against, p=p, abstention_precision=precision)
        )
    return tuple(compared)


def auc_estimate(values: NDArray[np.float64], positive: NDArray[np.bool_]) -> Estimate:
    """Return how well `values` predict `positive`, as the area under the ROC curve (AUC) with its interval."""
    return statistics.bootstrap(lambda chosen: statistics.auc(values[chosen], positive[chosen]), len(values))


def curves(table: Table, gates: Sequence[Gate], steps: int = 21) -> dict[str, tuple[tuple[float, float], ...]]:
    """Return, for each policy, the points (share that retrieves, mean of the metric) at `steps` budgets from 0 to 1."""
    found: dict[str, list[tuple[float, float]]] = {}
    for share in np.linspace(0, 1, steps):
        for choice in policies.at_budget(table, float(share), gates):
            found.setdefault(choice.name, []).append((choice.share, float(policies.values(table, choice).mean())))
    return {name: tuple(points) for name, points in found.items()}


def latencies(times: Sequence[TimedRequest]) -> list[PolicyLatency]:
    """Return the latency of each policy. Blanks that were not completed under every policy are omitted."""
    by_policy: dict[str, dict[str, TimedRequest]] = {}
    for each in times:
        by_policy.setdefault(each.policy, {})[each.task] = each
    tasks = sorted(set.intersection(*(set(found) for found in by_policy.values()))) if by_policy else []
    if not tasks or "always" not in by_policy:
        return []
    always = np.array([by_policy["always"][task].total for task in tasks])
    result = []
    for name, found in by_policy.items():
        rows = [found[task] for task in tasks]
        total = np.array([row.total for row in rows])
        speed_up = statistics.bootstrap(
            lambda chosen, total=total: float(always[chosen].mean() / total[chosen].mean() - 1),  # type: ignore[misc]
            len(tasks),
        )
        result.append(
            PolicyLatency(
                policy=name,
                requests=len(rows),
                share=float(np.mean([row.retrieved for row in rows])),
                decision=float(np.mean([row.decision for row in rows])),
                retrieval=float(np.mean([row.retrieval for row in rows])),
                generation=float(np.mean([row.generation for row in rows])),
                mean=float(total.mean()),
                p50=statistics.quantile(total, 0.5),
                p95=statistics.quantile(total, 0.95),
                speed_up=speed_up,
            )
        )
    return result


def expected_time(times: Sequence[PolicyLatency], share: float) -> float:
    """Return the mean time of a request in milliseconds, if the share `share` of all requests retrieves.

    The result is interpolated between the policies `never` and `always`, and NaN if these two were not measured.
    """
    means = {time.policy: time.mean for time in times}
    if "never" not in means or "always" not in means:
        return math.nan
    return means["never"] + share * (means["always"] - means["never"])


def _by_kind(rows: Sequence[Row], gates: Sequence[Gate]) -> tuple[PolicyFigures, ...]:
    return policy_figures(rows, policies.as_served(Table.of(rows), gates), "never")


def _repository(rows: Sequence[Row]) -> tuple[int, Estimate, float]:
    gain = Table.of(rows).gain
    return len(rows), statistics.mean(gain), float((gain > 0).mean())
