"""Complete evaluation runs with a real model: reports, interruption and resumption, and errors."""

from __future__ import annotations

import argparse
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import platformdirs
import pytest

from indexer.model import Chunk, Cursor
from policy.errors import EngineError, ModelError
from policy.evaluation import cli, evaluate, figures, record, table
from policy.evaluation.retrieval import Retrieval
from policy.evaluation.statistics import Estimate
from policy.evaluation.task import EvaluationError, Repository, Task
from policy.gating import calibration
from policy.gating.gate import Gate
from tests.evaluation.masked import SHOP, repoeval_row, unpack, write_jsonl
from tests.marked import mark

TINY = ["--left", "64", "--right", "24", "--context", "64", "--tokens", "8"]


def call(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    cli.register(parser.add_subparsers(required=True))
    options = parser.parse_args(list(map(str, arguments)))
    return int(options.run(options))


@pytest.fixture
def repoeval(tmp_path: Path) -> list[object]:
    """The arguments of an evaluation of three blanks. The repository of the last one is missing."""
    blanks = unpack(SHOP.replace("    base = 3\n", "«    base = 3\n»"), tmp_path / "repos" / "acme_shop")
    rows = [repoeval_row(blank, "acme_shop", number) for number, blank in enumerate(blanks)]
    rows.append(repoeval_row(blanks[0], "acme_shed", 0))
    file = write_jsonl(tmp_path / "line_level.jsonl", rows)
    return ["eval", "--dataset", "repoeval", "--data", file, "--repos", tmp_path / "repos", *TINY]


def test_a_data_set_is_evaluated_and_reported(
    tmp_path: Path, repoeval: list[object], model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run = [*repoeval, "--out", out, "--model", model, "--latency", "1"]
    tests = ["--tests", "python -c 'import shop.geometry'", "--tests-seconds", "20", "--tests-without-isolation"]
    assert call(*run, "--blanks", "2") == 0
    rows = table.read(out / record.RESULTS)
    assert [row.id for row in rows] == ["acme_shop/0", "acme_shop/1"]
    assert all(row.p_cc is None and row.surprise > 0 and row.tokens_without <= 8 for row in rows)
    assert {problem.item for problem in record.read_problems(out)} == {"acme_shed/0"}
    page = (out / "report.html").read_text("utf-8")
    assert "the repository acme_shed is not in" in page
    assert "faster than always" in page
    output = capsys.readouterr().out
    assert "Always retrieving changes edit similarity by" in output
    assert "report.html" in output

    # The last line of the results becomes incomplete. The same command must evaluate its blank again, and no other.
    written = (out / record.RESULTS).read_text("utf-8")
    (out / record.RESULTS).write_text(written[: written.rfind("\n", 0, -1) + 9], "utf-8")
    assert call(*run, "--blanks", "2", *tests) == 0
    again = table.read(out / record.RESULTS)
    assert [(row.id, row.without) for row in again][:1] == [(row.id, row.without) for row in rows][:1]
    assert [row.id for row in again] == [row.id for row in rows]
    assert {(row.tests_without, row.tests_with) for row in again} == {("pass", "pass")}
    # Unit tests that could not run are left out of the figures, and the next run with unit tests runs them again.
    table.rewrite(out / record.RESULTS, [replace(again[0], tests_with="not run: no space"), *again[1:]])
    assert call(*run, "--blanks", "2") == 0
    assert "The tests of 1 more could not run" in (out / "report.md").read_text("utf-8")
    assert call(*run, "--blanks", "2", *tests) == 0
    assert table.read(out / record.RESULTS) == again

    assert call("eval", "diff", out, out, "--fail-below", "0.5") == 0
    with pytest.raises(EvaluationError, match="another chunks"):
        call(*run, "--blanks", "2", "--chunks", "3")


def test_an_interrupted_run_reports_its_results_and_resumes(
    tmp_path: Path, repoeval: list[object], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run = [*repoeval, "--out", out, "--model", model, "--latency", "0", "--threads", "1"]

    class Interrupting:
        """A progress bar that simulates Ctrl-C after the first blank."""

        def __init__(self, what: str) -> None:
            pass

        def __call__(self, done: int, total: int) -> None:
            if done == 1:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(evaluate, "LANES", 1)
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "Bar", Interrupting)
        assert call(*run) == 130
    assert len(table.read(out / record.RESULTS)) == 1
    assert (out / "report.html").is_file()
    assert call(*run) == 0
    assert [row.id for row in table.read(out / record.RESULTS)] == ["acme_shop/0", "acme_shop/1"]


def test_an_untrained_decision_is_reported_as_uninformative(
    tmp_path: Path, workspace: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weight of this model's gate is 0, so the gate's probability is the same for all blanks."""
    gate = Gate("token", {"token": 0.0}, offset=-1.0)
    untrained = tmp_path / "untrained.gguf"
    mark(model, untrained, "repoformer-spm", {key: str(value) for key, value in gate.to_metadata().items()})
    out = tmp_path / "out"
    run = ["eval", "--workspace", workspace, "--out", out, "--model", untrained, *TINY]
    assert call(*run, "--latency", "0", "--blanks", "12") == 0
    rows = table.read(out / record.RESULTS)
    assert len(rows) == 12
    assert len({row.p_cc for row in rows}) > 6, "P(<cc>) is the same for most blanks"
    assert {row.gain > 0 for row in rows} == {True, False}, "retrieval improves all blanks or none"
    found = figures.compute(rows, [gate])
    assert found.signals[0] == figures.Signal("selective", Estimate(0.5, 0.5, 0.5))
    output = capsys.readouterr().out
    assert "The decision is the same for all blanks (AUC 0.50), so it carries no information" in output
    assert "The decision is the same for all blanks (AUC 0.50)" in (out / "report.md").read_text("utf-8")


def test_a_blank_that_does_not_fit_becomes_a_problem(tmp_path: Path, repoeval: list[object], model: Path) -> None:
    with pytest.raises(EvaluationError, match=r"no blank could be evaluated \(3 problems; the first: the repository"):
        call(*repoeval, "--out", tmp_path / "out", "--model", model, "--tokens", "100000")
    reasons = [problem.reason for problem in record.read_problems(tmp_path / "out")]
    assert sum("the engine failed" in reason and "do not fit" in reason for reason in reasons) == 2


def test_a_workspace_is_calibrated_and_the_calibration_undone(
    tmp_path: Path, workspace: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibration, "file", lambda: tmp_path / "thresholds.json")
    run = ["calibrate", "--workspace", workspace, "--out", tmp_path / "out", "--model", model, "--blanks", "4", *TINY]
    with pytest.raises(EvaluationError, match="too few to calibrate on"):
        call(*run)
    assert call(*run, "--least", "2") == 0
    sha256 = calibration.fingerprint(model)
    threshold = calibration.threshold_for(workspace, sha256)
    assert threshold is not None
    assert f"threshold {threshold:.2f}" in capsys.readouterr().out
    assert call("calibrate", "--workspace", workspace, "--undo") == 0
    assert calibration.threshold_for(workspace, sha256) is None
    assert call("calibrate", "--workspace", workspace, "--undo") == 1


def test_calibrating_again_after_a_code_change(
    tmp_path: Path, workspace: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "file", lambda: tmp_path / "thresholds.json")
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path / "cache"))
    folder = shutil.copytree(workspace, tmp_path / "app")
    run = ["calibrate", "--workspace", folder, "--model", model, "--blanks", "2", "--least", "1", *TINY]

    def runs() -> int:
        return len(list((tmp_path / "cache" / "eval").glob("workspace-app-*/results.csv")))

    assert call(*run) == 0
    assert call(*run) == 0
    assert runs() == 1, "the second call does not use the existing results"
    for path in folder.rglob("*.py"):
        path.write_text("import os\n" + path.read_text("utf-8"), "utf-8")
    assert call(*run) == 0
    assert runs() == 2


def test_folders_of_the_same_name_do_not_share_their_results() -> None:
    described = {"data": "workspace app", "tasks": "0123"}
    one, other = (record.folder("workspace-app", {**described, "sources": [f"/{parent}/app"]}) for parent in "ab")
    assert one != other
    assert one == record.folder("workspace-app", {"sources": ["/a/app"], **described})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("eval", "specify either --workspace DIR or --dataset"),
        ("eval --workspace . --dataset resample", "specify either --workspace DIR or --dataset"),
        ("eval --dataset resample", "resample needs --repos DIR"),
        ("eval --dataset repoeval --repos .", "repoeval needs --data FILE"),
        ("eval --dataset repoeval --data x", "repoeval needs --repos DIR"),
        ("eval --workspace . --kinds line,haiku", "unknown kind 'haiku'"),
        ("eval --workspace . --tests 'pytest", "No closing quotation"),
        ("eval --workspace no-such-folder", "no-such-folder is not a folder"),
        ("eval diff no-such-file other", "no-such-file cannot be read"),
    ],
)
def test_invalid_arguments_are_reported(arguments: str, message: str) -> None:
    with pytest.raises((EvaluationError, ModelError, EngineError), match=message):
        call(*arguments.split(" ", 4) if "--tests" in arguments else arguments.split())


def test_given_chunks_are_scored_by_similarity() -> None:
    chunks = [Chunk("/r", path, 1, 1, text, "window")
              for path, text in (("a.py", "nothing alike"), ("b.py", "def area_of(width, height): pass"))]  # fmt: skip
    prefix = "far away\n" + "\n" * 20 + "total = area_of(width, "
    task = Task("1", "line", "r", "c.py", Cursor("/r/c.py", prefix, ")\n", "python"), "height", given=tuple(chunks))
    hits, _ = Retrieval({}).find(task)
    assert [hit.chunk for hit in hits] == chunks, "the hits are not in the order of the data set"
    assert [hit.score for hit in hits] == [0.0, 2 / 6]


def test_retrieval_excludes_the_completed_file() -> None:
    files = {
        "a.py": "def area(width, height):\n    return width * height\n",
        "b.py": "print(area(width, height))\n" * 30,
    }
    retrieval = Retrieval({"r": Repository("/r", files)}, "window")

    task = Task("1", "line", "r", "b.py", Cursor("/r/b.py", "print(area(width, ", ")\n", "python"), "height")
    hits, milliseconds = retrieval.find(task)
    assert {hit.chunk.path for hit in hits} == {"a.py"}
    assert milliseconds > 0
