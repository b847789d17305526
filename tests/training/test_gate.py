"""Gates that are fitted to synthetic results, in which it is known which features predict the gain of retrieval."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policy.evaluation import record, table
from policy.evaluation.table import Row
from policy.gating.evidence import Evidence
from policy.gating.gate import Gate, GateInputs
from policy.training import cli, gate, manifest
from tests.evaluation.masked import row


def synthetic_rows(count: int, repositories: int = 8, **values: Any) -> list[Row]:
    """Return results in which retrieval helps if the best chunk is similar and the first token is uncertain.

    P(`<cc>`) is noise.
    """
    random = np.random.default_rng(3)
    rows = []
    for number in range(count):
        score, entropy, p = random.random(3)
        helps = score + entropy + random.normal(0, 0.1) > 1.2
        rows.append(
            row(number, repository=f"r{number % repositories}", es_without=50.0, es_with=60.0 if helps else 47.0,
                score=score, first_entropy=entropy, p_cc=p, **{"second": 0.2, "names": 1} | values)
        )  # fmt: skip
    return rows


def write(folder: Path, rows: list[Row]) -> Path:
    folder.mkdir()
    table.rewrite(folder / record.RESULTS, rows)
    return folder


def test_gates_are_compared_by_their_features(tmp_path: Path) -> None:
    metrics = gate.run(tmp_path / "gate", [write(tmp_path / "evaluated", synthetic_rows(400))])
    assert set(metrics) == set(gate.GATES)
    assert metrics["engine+scores"]["auc"][0] > 0.95
    assert metrics["all"]["against_always"][1] > 0
    assert metrics["engine+scores"]["selected"] > max(metrics["score"]["selected"], metrics["engine"]["selected"])
    low, high = metrics["token"]["auc"][1:]
    assert low < 0.5 < high, "P(<cc>), which is noise, appears to predict the gain"
    assert manifest.read(tmp_path / "gate")["gates"] == metrics
    fitted = Gate(**json.loads((tmp_path / "gate" / "engine+scores.json").read_text("utf-8")))
    needed, not_needed = (GateInputs("line", 0.5, 0.5, each, Evidence(each, 0.2, 1, 0.5, 3)) for each in (0.9, 0.1))
    assert (fitted.probability(needed) or 0) > fitted.line > (fitted.probability(not_needed) or 1)


def test_the_exported_gate_is_the_best_of_those_with_the_token() -> None:
    rows = synthetic_rows(400)
    assert gate.best_gate(rows) == "all"
    blind = [replace(row, es_with=60.0 if (row.first_entropy or 0) > 0.5 else 47.0) for row in rows]
    assert gate.best_gate(blind) == "token+engine", "a gate with features that predict nothing is exported"
    token, shipped = (gate.fit(rows, gate.GATES[name]) for name in ("token", gate.best_gate(rows)))
    assert (token.name, shipped.name) == ("token", "hybrid")


def test_gates_are_evaluated_on_held_out_repositories() -> None:
    names = [f"r{number}" for number, size in enumerate((50, 3, 9, 20, 1, 17)) for _ in range(size)]
    seen = set()
    for seed in range(20):
        first = gate.halves(names, seed)
        groups = [{name for name, own in zip(names, half, strict=True) if own} for half in (first, ~first)]
        assert groups[0] and groups[1] and not groups[0] & groups[1]
        seen.add(frozenset(groups[0]))
    assert len(seen) > 3
    # The two repositories have opposite rules. A gate that is fitted to both is right for half of the rows. A gate that
    # is fitted to one of them is wrong for almost all rows of the other.
    rows = [row(number, repository="ab"[number % 2], score=score, p_cc=0.5, es_without=50.0,
                es_with=60.0 if (score > 0.5) == (number % 2 == 0) else 40.0)
            for number, score in enumerate(np.random.default_rng(1).random(200).tolist())]  # fmt: skip
    p, chosen = gate.held_out(rows, ("score",))
    assert gate.evaluate(rows, p, chosen)["auc"][0] < 0.05


def test_a_gate_before_reading_is_fitted_for_a_model_that_does_not_decide(tmp_path: Path) -> None:
    """The gate is fitted to the gain in nats. In these rows, the gain in edit similarity has the opposite sign."""
    random = np.random.default_rng(4)
    scores, noise = random.random(400), random.normal(0, 0.1, 400)
    rows = [
        row(number, repository=f"r{number % 8}", p_cc=None, score=score, second=0.1, names=1, nll_without=20.0,
            nll_with=18.0 if score + wrong > 0.6 else 20.5, es_without=50.0, es_with=90.0 - 80 * score)
        for number, (score, wrong) in enumerate(zip(scores.tolist(), noise.tolist(), strict=True))
    ]  # fmt: skip
    metrics = gate.run(tmp_path / "gate", [write(tmp_path / "evaluated", rows)])
    assert set(metrics) == set(gate.EVIDENCE_GATES)
    found = metrics["evidence-score"]
    assert found["auc"][0] > 0.95
    assert found["selected"] > max(0.0, found["always"])
    assert found["right_abstentions"] > 0.9 and found["harm"] == pytest.approx(0.5)
    assert "evidence-score" in "\n".join(gate.report_lines(metrics))
    fitted = Gate(**json.loads((tmp_path / "gate" / "evidence-score.json").read_text("utf-8")))
    assert fitted.name == "evidence"
    # This is the score at which the gate's probability is one half.
    assert 0.5 < -fitted.offset / fitted.weights["score"] < 0.7


def test_gates_with_missing_features_are_left_out(tmp_path: Path) -> None:
    evaluated = write(tmp_path / "evaluated", synthetic_rows(60, names=None))
    assert set(gate.run(tmp_path / "gate", [evaluated])) == {"engine", "token", "token+engine"}


def test_runs_are_combined_and_a_common_blank_counts_once(tmp_path: Path) -> None:
    rows = synthetic_rows(60)
    runs = [write(tmp_path / name, part) for name, part in (("first", rows[:40]), ("second", rows[30:]))]
    assert sorted(row.id for row in gate.results(runs)) == sorted(row.id for row in rows)
    gate.run(tmp_path / "gate", runs)
    assert manifest.read(tmp_path / "gate")["counts"]["blanks"] == 60


@pytest.mark.parametrize(("count", "repositories"), [(10, 5), (60, 1)])
def test_too_few_results_are_refused(tmp_path: Path, count: int, repositories: int) -> None:
    evaluated = write(tmp_path / "evaluated", synthetic_rows(count, repositories))
    with pytest.raises(manifest.TrainingError, match=f"too few results in .*: {count} blanks of {repositories} "):
        gate.run(tmp_path / "gate", [evaluated])


def test_the_command_prints_the_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import argparse

    evaluated = write(tmp_path / "evaluated", synthetic_rows(80))
    parser = argparse.ArgumentParser()
    cli.register(parser.add_subparsers())
    options = parser.parse_args(["train", "gate", "--work", str(tmp_path), "--evaluated", str(evaluated)])
    assert options.run(options) == 0
    output = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in output] == ["gate", *gate.GATES]
    assert all("against always" in output[0] and "p = " in line for line in output[1:])
