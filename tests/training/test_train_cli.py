"""The command line of the training: default values, and errors for missing inputs."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import pytest

from policy.gating import calibration
from policy.training import cli, manifest
from policy.training.manifest import TrainingError

STEPS = ("corpus", "blanks", "adapt", "label", "probes", "finetune", "export", "gate")
NEEDS_BASE = {"adapt", "label", "finetune", "export"}


def _options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cli.register(parser.add_subparsers())
    return parser.parse_args(["train", *words])


@pytest.mark.parametrize("step", STEPS)
def test_each_step_has_a_command(step: str, tmp_path: Path) -> None:
    base = ["--base", "base.gguf"] if step in NEEDS_BASE else []
    options = _options(step, "--work", str(tmp_path), *base)
    assert options.run is getattr(cli, f"_run_{step}")
    assert cli._out(options, step) == tmp_path / step


def test_a_step_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _options()
    assert "STEP" in capsys.readouterr().err


@pytest.mark.parametrize("step", ["blanks", "adapt", "label", "probes", "finetune", "export", "gate"])
def test_a_missing_artefact_is_named(step: str, tmp_path: Path) -> None:
    (tmp_path / "base.gguf").write_bytes(b"GGUF")
    base = ["--base", str(tmp_path / "base.gguf")] if step in NEEDS_BASE else []
    options = _options(step, "--work", str(tmp_path), *base)
    with pytest.raises(TrainingError, match=r"missing|no checkpoint|too few labels"):
        options.run(options)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name="torch")

    monkeypatch.setattr(importlib, "import_module", absent)
    options = _options("gate", "--work", str(tmp_path))
    with pytest.raises(TrainingError, match=r"torch is not installed\. In a clone .*'\.\[train\]'"):
        options.run(options)


def test_an_input_without_a_manifest_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "corpus" / "train" / "pypi~a" / "a.py"
    source.parent.mkdir(parents=True)
    source.write_text("import os\n" * 50)
    options = _options("blanks", "--work", str(tmp_path))
    with pytest.raises(TrainingError, match=r"corpus has no manifest\.json: run the step that makes it first"):
        options.run(options)


def test_the_digest_covers_every_part_of_a_model(tmp_path: Path) -> None:
    first, second = (tmp_path / f"m-{number:05}-of-00002.gguf" for number in (1, 2))
    first.write_bytes(b"one")
    with pytest.raises(TrainingError, match=r"m-00002-of-00002\.gguf is missing"):
        manifest.digest(first)
    second.write_bytes(b"two")
    before = manifest.digest(first)
    assert before == calibration.fingerprint(first)
    second.write_bytes(b"three")
    assert manifest.digest(first) != before
