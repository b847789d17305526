"""Figures of policies, and reports, from synthetic results for which the correct figures are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from policy.evaluation import figures, policies, report
from policy.evaluation.latency import TimedRequest, served_policies
from policy.evaluation.table import Row, Table
from policy.evaluation.task import Problem
from policy.gating.gate import UNCALIBRATED, Gate
from tests.evaluation.masked import row

RUN = {"data": "synthetic", "model": {"file": "m.gguf", "sha256": "0" * 64, "layout": "repoformer", "budgets": {}}}


def synthetic_rows(count: int, p_cc: str, seed: int = 0) -> list[Row]:
    """Return results in which retrieval improves a fifth of the blanks and worsens another fifth.

    `p_cc` selects P(`<cc>`): with "knows", it is high where retrieval improves a blank; with "constant", it is the same
    for all blanks; with "noise", it is random.
    """
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        gain = float(random.choice([40.0, -40.0, 0.0], p=[0.2, 0.2, 0.6]))
        known = 0.15 + 0.6 * (gain > 0) + 0.2 * random.random()
        p = {"knows": known, "constant": 0.3, "noise": float(random.random())}[p_cc]
        rows.append(
            row(number, es_without=50.0, es_with=50 + gain, p_cc=round(p, 4), cc_is_top=p > 0.5,
                score=float(random.random()), surprise=float(random.random()), repository=f"r{number % 4}",
                kind="line" if number % 3 else "function")
        )  # fmt: skip
    return rows


def policy(rows: list[Row], name: str, part: str = "served") -> figures.PolicyFigures:
    every: Sequence[figures.PolicyFigures] = getattr(figures.compute(rows, [UNCALIBRATED]), part)
    return next(each for each in every if each.name == name)


def test_a_perfect_decision_equals_the_oracle() -> None:
    rows = synthetic_rows(300, "knows")
    found = figures.compute(rows, [replace(UNCALIBRATED, line=0.5, block=0.5)])
    selective = next(each for each in found.served if each.name == "selective, threshold")
    oracle = next(each for each in found.served if each.name == "oracle")
    assert selective.es.value == pytest.approx(oracle.es.value)
    assert found.signals[0].auc.value == 1.0
    assert found.signals[0].informative
    assert selective.abstention_precision == 1.0
    assert "predicts that retrieval helps with an AUC of 1.000" in "\n".join(report.findings(found, ()))


def test_a_constant_decision_carries_no_information() -> None:
    found = figures.compute(synthetic_rows(300, "constant"), [UNCALIBRATED])
    assert found.signals[0].auc.value == 0.5
    assert not found.signals[0].informative
    output = "\n".join(report.findings(found, ()))
    assert "The decision is the same for all blanks (AUC 0.50), so it carries no information" in output
    assert "not shown to differ from retrieving at random (+0.00 in edit similarity" in output
    budget = {each.name: each for each in found.equal}
    assert budget["selective"].es.value == budget["random"].es.value


def test_a_random_decision_is_not_better_than_chance() -> None:
    found = figures.compute(synthetic_rows(300, "noise"), [UNCALIBRATED])
    assert found.signals[0].auc.low < 0.5 < found.signals[0].auc.high
    assert "not shown to be better than chance" in "\n".join(report.findings(found, ()))


def test_a_model_without_the_token_uses_trial_retrieval() -> None:
    rows = [row(number, score=number / 40, es_with=float(number % 2)) for number in range(40)]
    found = figures.compute(rows, [])
    assert found.primary == "trial retrieval"
    assert not any(each.name.startswith("selective") for each in found.served)
    assert "makes no decision of its own" in "\n".join(report.findings(found, ()))


def test_a_model_without_the_token_can_have_a_gate_on_the_hits() -> None:
    rows = [row(number, match=number, es_without=50.0, es_with=70.0 if number > 5 else 40.0) for number in range(16)]
    gate = Gate("evidence", {"match": 1.0}, -math.log1p(5.5), 0.5, 0.5)
    found = figures.compute(rows, [gate])
    assert found.primary == "selective"
    served = {each.name: each for each in found.served}
    assert "selective, greedy" not in served
    assert served["selective, threshold"].es.value == served["oracle"].es.value
    assert list(served_policies([gate])) == ["never", "always", "selective, threshold"]


def test_blanks_whose_tests_could_not_run_do_not_count() -> None:
    outcomes = [("pass", "pass"), ("exit status 1", "pass"), ("not run: x", "pass"), ("pass", "not run: x"), ("", "")]
    rows = [row(number, tests_without=without, tests_with=with_) for number, (without, with_) in enumerate(outcomes)]
    found = figures.compute(rows, [UNCALIBRATED])
    assert (found.tests[0], found.tests[1].value, found.tests[2].value) == (2, 50.0, 100.0)
    assert found.untested == 2


def test_help_harm_and_no_change_are_counted() -> None:
    rows = [row(number, es_without=50.0, es_with=50.0 + gain) for number, gain in enumerate([10, 20, -5, 0, 0])]
    found = figures.compute(rows, [UNCALIBRATED])
    assert (found.helped, found.harmed, found.unchanged) == (0.4, 0.2, 0.4)
    assert found.gain.value == 5.0


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 0.99, 1.0])
def test_every_policy_keeps_its_budget(share: float) -> None:
    table = Table.of(synthetic_rows(97, "noise"))
    choices = {choice.name: choice for choice in policies.at_budget(table, share, [UNCALIBRATED])}
    for name in ("selective", "trial retrieval", "trial generation", "random"):
        assert choices[name].share == pytest.approx(share)
    assert choices["oracle"].share <= share + 1e-9
    best = policies.values(table, choices["oracle"]).mean()
    assert all(policies.values(table, choice).mean() <= best + 1e-9 for choice in choices.values())


def test_thresholds_depend_on_the_kind_of_blank() -> None:
    rows = [row(0, kind="line", p_cc=0.18), row(1, kind="function", p_cc=0.18)]
    chosen = {choice.name: choice for choice in policies.as_served(Table.of(rows), [UNCALIBRATED])}
    assert chosen["selective, threshold"].weights.tolist() == [0, 1]


def test_abstention_precision_counts_what_could_not_be_improved() -> None:
    rows = [row(number, es_without=50.0, es_with=50.0 + gain) for number, gain in enumerate([10, -10, 0, 0])]
    table = Table.of(rows)
    assert policies.abstention_precision(table, policies.Choice("", np.zeros(4))) == 0.75
    assert policies.abstention_precision(table, policies.Choice("", np.array([1.0, 0, 0, 0]))) == 1.0
    assert np.isnan(policies.abstention_precision(table, policies.Choice("", np.ones(4))))


@pytest.mark.parametrize("scores", [[0.31, 0.35, 0.32], [0.9, 0.1, 0.5], [0.3, 0.3, 0.3]])
def test_a_sweep_goes_from_always_to_never(scores: list[float]) -> None:
    rows = [row(number, score=score, es_without=50.0, es_with=60.0) for number, score in enumerate(scores)]
    table = Table.of(rows)
    score = table.column("score")
    points = policies.sweep(table, score, policies.thresholds_across(score))
    assert [point.share for point in points] == sorted((point.share for point in points), reverse=True)
    assert (points[0].share, points[0].value) == (1.0, 60.0)
    assert (points[-1].share, points[-1].value) == (0.0, 50.0)
    assert len({point.share for point in points}) == 1 + len(set(scores))


def test_the_best_threshold_includes_the_cost_of_retrieval() -> None:
    rows = [row(0, score=0.9, es_without=0.0, es_with=40.0), row(1, score=0.5, es_without=0.0, es_with=0.5),
            row(2, score=0.1, es_without=40.0, es_with=0.0)]  # fmt: skip
    table = Table.of(rows)
    score = table.column("score")
    assert policies.best_threshold(table, score).threshold == pytest.approx(0.3)
    assert policies.best_threshold(table, score, cost=1.0).threshold == pytest.approx(0.7)


def test_the_best_threshold_abstains_if_retrieval_only_harms() -> None:
    table = Table.of([row(number, score=number / 10, es_without=50.0, es_with=40.0) for number in range(8)])
    best = policies.best_threshold(table, table.column("score"))
    assert (best.threshold, best.share) == (1.0, 0.0)


def test_a_report_is_one_file_that_contains_every_plot(tmp_path: object) -> None:
    rows = synthetic_rows(60, "knows")
    found = figures.compute(
        rows, [replace(UNCALIBRATED, name="hybrid", weights={"token": 1.0, "block": 0.1}), UNCALIBRATED]
    )
    from pathlib import Path

    out = Path(str(tmp_path))
    report.write(out, rows, found, RUN, [Problem("x/1", "the repository <x> is not there")])
    page = (out / "report.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") == 5
    assert 'src="http' not in page
    assert "the repository &lt;x&gt; is not there" in page
    text = (out / "report.md").read_text("utf-8")
    assert "| selective, threshold |" in text
    assert "| selective, token |" in text
    assert all((out / f"{name}.png").is_file() for name in ("gain", "threshold", "abstention", "calibration", "budget"))


def test_latency_is_compared_request_by_request() -> None:
    def timed(task: str, policy: str, total: float) -> TimedRequest:
        waited = total / 4 if policy == "always" else 0.0
        return TimedRequest(task, policy, policy == "always", total / 2 - waited, waited, total / 2, total)

    times = [timed(task, policy, total) for task in "abc" for policy, total in (("never", 50.0), ("always", 100.0))]
    found = {time.policy: time for time in figures.latencies([*times, timed("d", "never", 1e9)])}
    assert found["never"].requests == 3
    assert found["never"].speed_up.value == pytest.approx(1.0)
    assert found["always"].p50 == 100
    assert figures.expected_time(tuple(found.values()), 0.5) == pytest.approx(75)
