"""What made an artefact: a `manifest.json` beside it says it, and makes a step resumable.

A step that is started again with the same inputs and arguments goes on where it stopped; started with others it
refuses, because half of one run and half of another is worth nothing. The manifest is written twice: at the start
(what is being made), and at the end with the counts and metrics and `"done": true`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policy.errors import RepoformerError
from policy.models.shards import sha256, shards_of

NAME = "manifest.json"


class TrainingError(RepoformerError):
    """A step cannot go on, and why; shown to the person as it is."""


def digest(path: Path) -> str:
    """SHA-256 of an artefact's manifest (which says all of what is in it), of a file, or of a model: of all its parts,
    or of the files in its Hugging Face folder.

    Raises `TrainingError` for what is not there, not finished, or a folder that does not say what made it.
    """
    if not path.is_dir():
        files = shards_of(path)
    elif known := read(path):
        if not known["done"]:
            raise TrainingError(f"{path} is not finished: run the step that makes it first")
        files = [path / NAME]
    elif (path / "config.json").is_file():
        files = sorted(file for file in path.iterdir() if file.is_file())
    else:
        raise TrainingError(f"{path} has no {NAME} in it: run the step that makes it first")
    if missing := [file for file in files if not file.exists()]:
        raise TrainingError(f"{missing[0]} is missing: run the step that makes it first")
    return sha256(files)


def begin(folder: Path, step: str, inputs: Mapping[str, Path], arguments: Mapping[str, Any]) -> None:
    """Open `folder` for `step`: a run of it that is there already is gone on with.

    Raises `TrainingError` when that was made from other inputs or with other arguments.
    """
    said = {
        "step": step,
        "inputs": {name: digest(path) for name, path in inputs.items()},
        "arguments": json.loads(json.dumps(dict(arguments), default=str)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    known = read(folder)
    if known:
        if different := [key for key in said if known.get(key) != said[key]]:
            detail = "; ".join(f"{key}: {known.get(key)} there, {said[key]} now" for key in different)
            raise TrainingError(f"{folder} holds another run ({detail}). Choose another --out, or remove it.")
        return
    write(folder, {**said, "commit": commit(), "done": False})


def finish(folder: Path, **results: Any) -> None:
    """Add counts and metrics, and mark the artefact as whole."""
    write(folder, {**read(folder), **results, "done": True})


def read(folder: Path) -> dict[str, Any]:
    """The manifest in `folder`, empty when there is none."""
    path = folder / NAME
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}


def write(folder: Path, values: Mapping[str, Any]) -> None:
    """Replace the manifest at once, so that an interrupt leaves the old one or the new one."""
    temporary = folder / (NAME + ".new")
    try:
        temporary.write_text(json.dumps(values, indent=1, sort_keys=True, default=str) + "\n", "utf-8")
        temporary.replace(folder / NAME)
    except OSError as problem:
        raise TrainingError(f"could not write {folder / NAME}: {problem}") from problem


def commit() -> str:
    """The commit of the source tree, or the installed version where there is none."""
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        return told.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
