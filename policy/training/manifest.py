"""Write a `manifest.json` into the folder of each artifact. It records how the artifact was made.

A step that starts again with the same inputs and arguments resumes. With other inputs or arguments, it raises an error,
because a mixture of two runs is useless. The manifest is written twice: at the start with inputs and arguments, and at
the end also with counts, metrics and `"done": true`.
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
    """A training step cannot continue. The message is shown to the user."""


def digest(path: Path) -> str:
    """Return the SHA-256 of an input: an artifact's manifest, a file, all shards of a model, or a Hugging Face folder.

    Raises `TrainingError` if the input is missing or unfinished, or if a folder is neither an artifact nor a model.
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
        raise TrainingError(f"{path} has no {NAME}: run the step that makes it first")
    if missing := [file for file in files if not file.exists()]:
        raise TrainingError(f"{missing[0]} is missing: run the step that makes it first")
    return sha256(files)


def begin(folder: Path, step: str, inputs: Mapping[str, Path], arguments: Mapping[str, Any]) -> None:
    """Create the manifest of `step` in `folder`. If it exists, check that it has the same inputs and arguments.

    Raises `TrainingError` if the existing manifest has other inputs or arguments.
    """
    description = {
        "step": step,
        "inputs": {name: digest(path) for name, path in inputs.items()},
        "arguments": json.loads(json.dumps(dict(arguments), default=str)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    known = read(folder)
    if known:
        if different := [key for key in description if known.get(key) != description[key]]:
            detail = "; ".join(f"{key}: {known.get(key)} there, {description[key]} now" for key in different)
            raise TrainingError(f"{folder} holds another run ({detail}). Choose another --out, or remove that folder.")
        return
    write(folder, {**description, "commit": commit(), "done": False})


def finish(folder: Path, **results: Any) -> None:
    """Add counts and metrics to the manifest, and mark the artifact as complete."""
    write(folder, {**read(folder), **results, "done": True})


def read(folder: Path) -> dict[str, Any]:
    """Return the manifest in `folder`, or an empty dictionary if there is none."""
    path = folder / NAME
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}


def write(folder: Path, values: Mapping[str, Any]) -> None:
    """Replace the manifest in `folder` in one step. Raises `TrainingError` if it cannot be written."""
    temporary = folder / (NAME + ".new")
    try:
        temporary.write_text(json.dumps(values, indent=1, sort_keys=True, default=str) + "\n", "utf-8")
        temporary.replace(folder / NAME)
    except OSError as problem:
        raise TrainingError(f"could not write {folder / NAME}: {problem}") from problem


def commit() -> str:
    """Return the commit of the source tree, or "unknown" outside a git repository."""
    try:
        completed = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        return completed.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
