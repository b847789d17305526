"""The threshold of a calibrated workspace is stored, used by the server, and undone."""

from __future__ import annotations

import json
import subprocess
import sys
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


def calibrated(threshold: float) -> Calibration:
    return Calibration(threshold, "m.gguf", "ab12", 50, "2026-01-01")


@pytest.mark.parametrize("other", ['[{"threshold": 1}]', "3", '[{"threshold": 0.3, "version": 2}]', "null"])
def test_an_entry_that_cannot_be_read_is_kept_and_costs_no_other_one(tmp_path: Path, stored: Path, other: str) -> None:
    calibration.store(tmp_path / "a", calibrated(0.2))
    entries = json.loads(stored.read_text()) | {"/elsewhere": json.loads(other)}
    stored.write_text(json.dumps(entries))
    assert calibration.threshold_for(tmp_path / "a", "ab12") == 0.2
    calibration.store(tmp_path / "b", calibrated(0.4))
    assert [calibration.threshold_for(tmp_path / name, "ab12") for name in "ab"] == [0.2, 0.4]
    calibration.undo(tmp_path / "a")
    assert [calibration.threshold_for(tmp_path / name, "ab12") for name in "ab"] == [None, 0.4]
    assert json.loads(stored.read_text())["/elsewhere"] == json.loads(other)


def test_an_invalid_file_is_renamed(tmp_path: Path, stored: Path) -> None:
    stored.parent.mkdir()
    stored.write_text('{"/elsewhere": [')
    calibration.store(tmp_path, calibrated(0.2))
    assert calibration.threshold_for(tmp_path, "ab12") == 0.2
    assert stored.with_suffix(".damaged").read_text() == '{"/elsewhere": ['


def test_processes_that_store_at_once_lose_nothing(tmp_path: Path, stored: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from policy.gating import calibration as c\n"
        "c.file = lambda: Path(sys.argv[1])\n"
        "for n in range(20): c.store(Path(sys.argv[2], str(n)), c.Calibration(0.5, 'm', 'ab12', 1, ''))\n"
    )
    root = Path(__file__).resolve().parents[2]
    arguments = [[str(stored), str(tmp_path / str(number))] for number in range(3)]
    running = [subprocess.Popen([sys.executable, "-c", program, *each], cwd=root) for each in arguments]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len(json.loads(stored.read_text())) == 60


@pytest.mark.usefixtures("stored")
def test_a_link_names_the_same_workspace(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    calibration.store(tmp_path / "link", calibrated(0.2))
    for opened, document in (("link", "real"), ("real", "link"), ("link", "link")):
        workspace = tmp_path / opened
        assert calibration.workspace_of(tmp_path / document / "a.py", [workspace]) == workspace


def test_the_fingerprint_includes_every_shard(tmp_path: Path) -> None:
    parts = [tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    for part in parts:
        part.write_bytes(part.name.encode())
    before = calibration.fingerprint(parts[0])
    parts[1].write_bytes(b"other weights")
    assert calibration.fingerprint(parts[0]) != before
