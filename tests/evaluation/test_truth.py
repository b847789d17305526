"""The results of the built-in model on the truth set, compared with the snapshot in `benchmarks/truth`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.truth import snapshot
from policy.evaluation import comparing, record, table

BEFORE = table.read(snapshot.HERE / record.RESULTS)


@pytest.mark.timeout(1200)  # seconds; the test takes 90 seconds on two idle cores, and much more under load
def test_the_included_model_matches_its_snapshot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = snapshot.shipped()
    assert model is not None, "this checkout includes no model"
    if other := snapshot.other_model(model):
        pytest.fail(other)
    after = snapshot.evaluate(tmp_path, model)
    kept, now = (record.read_run(folder) for folder in (snapshot.HERE, tmp_path))
    differing = [name for name in record.differences(kept, now) if name != "device"]
    with capsys.disabled():
        print("\n" + "\n".join(comparing.report_lines(comparing.compare(BEFORE, after))))
    assert not differing, f"the snapshot was made with another {', '.join(differing)}. {snapshot.REMAKE}"
    if worse := snapshot.failures(BEFORE, after):
        pytest.fail(f"{'; '.join(worse)}. {snapshot.REMAKE}")


def test_the_error_for_another_model_says_how_to_update_the_snapshot(tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF")
    output = snapshot.other_model(other)
    assert "other.gguf" in output and "make truth" in output


def test_the_snapshot_belongs_to_this_truth_set() -> None:
    lines = (snapshot.HERE / "blanks.jsonl").read_text("utf-8").splitlines()
    assert len(BEFORE) == len(lines) == 60
    assert [row.id for row in BEFORE] == sorted(row.id for row in BEFORE)


def test_a_drop_many_changes_and_missing_blanks_are_reported() -> None:
    assert snapshot.failures(BEFORE, BEFORE) == []
    worse = [replace(row, es_with=row.es_with - 2 * snapshot.BAND) for row in BEFORE]
    assert "es_with fell by 6.00 points, more than 3" in snapshot.failures(BEFORE, worse)[0]
    slightly = [replace(row, es_with=row.es_with - snapshot.BAND / 2) for row in BEFORE]
    assert snapshot.failures(BEFORE, slightly) == []
    others = [replace(row, without=row.without + "!", with_=row.with_ + "!") for row in BEFORE]
    assert snapshot.failures(BEFORE, others) == ["100% of the completions changed, more than 50%"]
    assert "1 blanks are in only one of the two runs" in snapshot.failures(BEFORE, BEFORE[1:])[0]
