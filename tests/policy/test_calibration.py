"""Thresholds that are stored for a workspace, used by the server, and taken back."""

from __future__ import annotations

from pathlib import Path

import pytest

from policy.gating import calibration
from policy.gating.calibration import Calibration


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "data" / "thresholds.json"
    monkeypatch.setattr(calibration, "file", lambda: file)
    return file


@pytest.mark.usefixtures("stored")
def test_a_calibration_holds_until_it_is_undone(tmp_path: Path) -> None:
    first, second = (Calibration(threshold, "m.gguf", "ab12", 50, "2026-01-01") for threshold in (0.2, 0.4))
    calibration.store(tmp_path, first)
    calibration.store(tmp_path, second)
    assert calibration.threshold_for(tmp_path, "ab12") == 0.4
    assert calibration.threshold_for(tmp_path, "cd34") is None
    assert calibration.threshold_for(tmp_path / "elsewhere", "ab12") is None
    assert calibration.undo(tmp_path) == (second, first)
    assert calibration.threshold_for(tmp_path, "ab12") == 0.2
    assert calibration.undo(tmp_path) == (first, None)
    assert calibration.undo(tmp_path) == (None, None)
    assert calibration.threshold_for(tmp_path, "ab12") is None


@pytest.mark.usefixtures("stored")
def test_the_innermost_calibrated_workspace_counts(tmp_path: Path) -> None:
    outer, inner = tmp_path, tmp_path / "packages" / "core"
    file = inner / "a.py"
    assert calibration.workspace_of(file, [outer, inner]) is None
    calibration.store(outer, Calibration(0.2, "m.gguf", "ab12", 50, "2026-01-01"))
    assert calibration.workspace_of(file, [outer, inner]) == outer
    calibration.store(inner, Calibration(0.4, "m.gguf", "ab12", 50, "2026-01-01"))
    assert calibration.workspace_of(file, [outer, inner]) == inner
    assert calibration.workspace_of(tmp_path.parent / "b.py", [outer, inner]) is None
    calibration.undo(inner)
    assert calibration.workspace_of(file, [outer, inner]) == outer


@pytest.mark.parametrize("text", ["", "[]", '{"x": 3}', '{"x": [{"threshold": 1}]}'])
def test_a_damaged_file_of_thresholds_counts_as_none(tmp_path: Path, stored: Path, text: str) -> None:
    stored.parent.mkdir()
    stored.write_text(text)
    assert calibration.threshold_for(tmp_path, "ab12") is None
    assert calibration.workspace_of(tmp_path / "a.py", [tmp_path]) is None


def test_every_part_of_a_model_makes_it_the_model_that_it_is(tmp_path: Path) -> None:
    parts = [tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    for part in parts:
        part.write_bytes(part.name.encode())
    before = calibration.fingerprint(parts[0])
    parts[1].write_bytes(b"other weights")
    assert calibration.fingerprint(parts[0]) != before
