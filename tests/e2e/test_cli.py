"""The command line, as a user runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lsp_server import cli
from tests.e2e.driving import SERVER, Workspace
from tests.policy.tiny_embedder import tiny_bert

Write = Callable[[str], Workspace]
TWO_FILES = """
#- shapes.py
def rectangle_area(width, height):
    return width * height
#- main.py
from shapes import rectangle_area

width, height = 3, 4
print(rectangle_area(‸
"""


@pytest.fixture
def run(home: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs `repoformer-lsp` with arguments, and fails unless the exit status is `status`."""

    def run(*arguments: object, status: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [str(SERVER), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=home, **options)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


Run = Callable[..., subprocess.CompletedProcess[str]]


def test_help_names_every_command(run: Run) -> None:
    text = run("--help").stdout
    for command in cli.COMMANDS:
        assert re.search(rf"^    {command}\s+\w", text, re.MULTILINE)
        assert run(command, "--help").stdout.startswith(f"usage: repoformer-lsp {command}")


def test_complete_prints_json(run: Run, workspace: Write, model: Path) -> None:
    place = workspace(TWO_FILES)
    at = f"{place.file}:{place.cursor[0] + 1}:{place.cursor[1] + 1}"
    done = run("complete", at, "--root", place.root, "--policy", "always", "--model", model, "--json")
    report = json.loads(done.stdout)
    assert report["text"]
    assert report["decision"].keys() == {"p_retrieve", "threshold", "retrieve", "source", "held", "deferred"}
    assert report["decision"]["retrieve"] is True
    assert [(chunk["path"], chunk["start_line"]) for chunk in report["chunks"]] == [("shapes.py", 1)]
    assert report["chunks"][0].keys() == {"path", "start_line", "end_line", "score"}
    assert report["model"] == model.stem
    assert all(ms >= 0 for ms in report["timings_ms"].values())


def test_complete_prints_text(run: Run, workspace: Write, model: Path) -> None:
    place = workspace(TWO_FILES)
    done = run("complete", "main.py:4:22", "--policy", "never", "--model", model, cwd=place.root)
    assert done.stdout.strip()
    assert "did not retrieve: probability " in done.stderr and "total" in done.stderr


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("absent.py:1:1", "cannot be read"),
        ("main.py:99:1", "there is no line 99"),
        ("main.py:1:99", "there is no line 1, column 99"),
        ("binary.py:1:1", "is a binary file"),
    ],
)
def test_complete_where_there_is_nothing(run: Run, workspace: Write, place: str, message: str) -> None:
    root = workspace(TWO_FILES).root
    (root / "binary.py").write_bytes(bytes(range(256)))
    assert message in run("complete", place, cwd=root, status=1).stderr


@pytest.mark.parametrize("place", ["main.py", "main.py:1", "main.py:0:1", "main.py:a:b", ":1:1"])
def test_a_place_that_is_none(run: Run, place: str) -> None:
    assert "is not FILE:LINE:COLUMN" in run("complete", place, status=2).stderr


def test_complete_without_a_model(run: Run, workspace: Write) -> None:
    place = workspace(TWO_FILES)
    done = run("complete", f"{place.file}:1:1", "--model", place.root / "absent.gguf", status=1)
    assert "There is no model at" in done.stderr


def test_index_and_search(run: Run, workspace: Write, tmp_path: Path) -> None:
    root = workspace(TWO_FILES).root
    figures = json.loads(run("index", root, "--json").stdout)
    assert figures["files"] == 2 and figures["chunks"] >= 2
    assert "2 files" in run("index", root).stdout
    found = json.loads(run("search", root, "--query", "def rectangle_area(width, height)", "--json").stdout)
    assert (found[0]["path"], found[0]["start_line"]) == ("shapes.py", 1)
    assert "width * height" in found[0]["text"]
    assert "shapes.py:1-2" in run("search", root, "--query", "rectangle_area width height").stdout
    embedder = str(tiny_bert(tmp_path / "tiny.gguf"))
    for _ in range(2):  # the second run reads the vectors that the first one stored
        by_meaning = run("search", root, "--query", "def rectangle_area(width)", "--embedding", embedder)
        assert "shapes.py:1-2" in by_meaning.stdout
    assert "nothing found" in run("search", root, "--query", "zebra").stdout


def test_why_a_file_is_not_indexed(run: Run, workspace: Write) -> None:
    root = workspace(TWO_FILES + "#- .gitignore\nshapes.py\n").root
    answer = json.loads(run("index", root, "--why-not", "shapes.py", "--json").stdout)
    assert (answer["indexed"], answer["rule"]) == (False, "ignored")
    assert ".gitignore" in answer["detail"]
    assert "main.py is indexed" in run("index", root, "--why-not", root / "main.py").stdout


def test_a_folder_that_is_not_there(run: Run, tmp_path: Path) -> None:
    assert "is not a folder" in run("index", tmp_path / "gone", status=1).stderr


def test_models(run: Run, model: Path, tmp_path: Path) -> None:
    assert run("model", "path", "--model", model).stdout.strip() == str(model)
    assert "There is no model at" in run("model", "path", "--model", tmp_path / "absent.gguf", status=1).stderr


def test_doctor(run: Run, model: Path) -> None:
    findings = {row["check"]: row for row in json.loads(run("doctor", "--model", model, "--json").stdout)}
    assert {"version", "llama.cpp", "GPU", "model", "engine", "cache", "log", "file watching"} <= findings.keys()
    assert findings["engine"]["state"] == "ok"
    assert not [row for row in findings.values() if row["state"] == "problem"]


@pytest.mark.parametrize("line", ["doctor --model absent.gguf", "--stdio --model absent.gguf doctor"])
def test_doctor_says_what_to_do(run: Run, line: str) -> None:
    text = run(*line.split(), status=1).stdout
    assert "✗ model: There is no model at" in text
    assert "repoformer-lsp model list" in text


@pytest.mark.parametrize("command", ["model pull", "index . --json", "eval --help"])
def test_the_reader_of_the_output_has_ended(command: str, home: dict[str, str], tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    arguments = [str(SERVER), *command.split()]
    done = subprocess.run(
        arguments, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path, env=home
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_an_error_of_another_pipe_is_not_hidden(monkeypatch: pytest.MonkeyPatch, capfd: object) -> None:
    def fail(_arguments: list[str]) -> int:
        raise BrokenPipeError("another pipe")

    monkeypatch.setattr(cli, "_run", fail)
    with pytest.raises(BrokenPipeError, match="another pipe"):
        cli.main([])


def test_an_address_that_is_none(run: Run) -> None:
    assert "is not HOST:PORT" in run("--tcp", "nowhere", status=2).stderr
