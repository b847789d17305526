"""The script that installs the server for every editor: complete installations, and each kind of failure."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.editors.conftest import REPOSITORY
from tests.editors.package import WHEEL, Package, package, put_uv
from tests.standin_index import hub_path

EDITORS = REPOSITORY / "editors"
SCRIPT = EDITORS / "vscode" / "install.py"
Run = Callable[..., "list[dict[str, Any]]"]


@pytest.fixture
def served(tmp_path: Path, interim: Path) -> Iterator[Package]:
    with package(tmp_path, interim.read_bytes()) as state:
        yield state


@pytest.fixture
def uv(home: dict[str, str], tmp_path: Path) -> Path:
    """A stand-in for uv on the PATH. The script uses uv if it finds it, otherwise pip."""
    program = put_uv(tmp_path / "uv")
    home["PATH"] = f"{program.parent}{os.pathsep}{home['PATH']}"
    return program


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder into which the script installs the server."""
    return tmp_path / "data of the editor" / "server"


@pytest.fixture
def begin(home: dict[str, str], served: Package, folder: Path) -> Callable[..., subprocess.Popen[str]]:
    def begin(*arguments: str, python: str = sys.executable, **env: str) -> subprocess.Popen[str]:
        command = [python, str(SCRIPT), str(folder), "--again", "run the command again", *arguments]
        return subprocess.Popen(
            command, env=home | served.environment | env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    return begin


@pytest.fixture
def run(begin: Callable[..., subprocess.Popen[str]]) -> Run:
    """Return a function that runs the script to its end and returns the JSON objects that it wrote.

    The last object is the outcome.
    """

    def run(*arguments: str, status: int = 0, **options: str) -> list[dict[str, Any]]:
        with begin(*arguments, **options) as process:
            out, err = process.communicate()
        assert process.returncode == status, out + err
        assert "Traceback" not in err, err
        return [json.loads(line) for line in out.splitlines()]

    return run


def check_rising(told: list[dict[str, Any]]) -> None:
    percents = [each["percent"] for each in told if each.get("percent") is not None]
    assert percents == sorted(percents) and percents[0] == 0 and percents[-1] > 95


def test_the_editors_have_the_same_file() -> None:
    for editor in ("neovim", "emacs"):
        assert (EDITORS / editor / "install.py").read_bytes() == SCRIPT.read_bytes(), f"copy {SCRIPT} to {editor}"


def test_an_old_python_can_read_it() -> None:
    """Python 3.7 can parse the script, so the script itself can report that this Python is too old."""
    ast.parse(SCRIPT.read_text("utf-8"), feature_version=(3, 7))


def test_server_and_model(run: Run, folder: Path, served: Package, home: dict[str, str]) -> None:
    told = run()
    assert Path(told[-1]["program"]).is_relative_to(folder)
    assert told[-1]["warning"] == ""
    check_rising(told)
    assert [each["percent"] for each in told if "Downloading the model" in each.get("message", "")][-1] == 95
    assert list(Path(home["XDG_CACHE_HOME"]).rglob(served.card.file))

    env = {**os.environ, **home}
    listed = subprocess.run([told[-1]["program"], "model", "list"], env=env, capture_output=True, text=True, check=True)
    assert served.card.file in listed.stdout

    served.index.asked.clear()
    assert run()[-1] == told[-1], "a second run, which updates the server, has another outcome"
    assert not [path for path, _ in served.index.asked if path == hub_path(served.card)], "the model is requested again"


def test_with_uv(run: Run, folder: Path, served: Package, uv: Path) -> None:
    told = run("--package", str(served.wheel), "--model", "")
    assert told[-1]["program"]
    assert (uv.parent / "told").read_text().splitlines() == [
        f"venv --python {sys.executable} {folder}",
        f"pip install --python {folder / 'bin' / 'python'} --upgrade {served.wheel}",
    ]


@pytest.mark.usefixtures("uv")
def test_without_a_model_the_server_is_used_all_the_same(run: Run, served: Package) -> None:
    served.index.files.pop(hub_path(served.card))
    told = run()
    assert told[-1]["program"]
    assert "could not be downloaded; the small built-in model is used" in told[-1]["warning"]
    assert "model pull" in told[-1]["warning"], "the warning does not say how to get the model later"


def old_python(folder: Path) -> str:
    """Write a program that runs this Python, but reports the version 3.8."""
    path = folder / "python3"
    code = "import sys; sys.version_info = (3, 8, 1); del sys.argv[0]; import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"  # noqa: E501
    path.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit 1\nexec {sys.executable} -c "{code}" "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_python_too_old(run: Run, tmp_path: Path) -> None:
    programs = tmp_path / "old"
    programs.mkdir()
    failed = run(status=1, python=old_python(programs), PATH=str(programs))[-1]
    assert failed["kind"] == "python"
    assert failed["error"] == "Python 3.8 is too old: the server needs 3.10 or later."
    assert re.fullmatch("Install Python 3.10 or later .* or uv .*, then run the command again.", failed["advice"])

    (programs / "python3.11").symlink_to(sys.executable)
    told = run("--model", "", python=old_python(programs), PATH=str(programs))
    assert told[-1]["program"], "no other Python that is new enough is used"


@pytest.mark.usefixtures("uv")
def test_index_out_of_reach(run: Run, folder: Path) -> None:
    failed = run(status=1, PIP_INDEX_URL="http://127.0.0.1:9/simple")[-1]
    assert (failed["kind"], failed["error"]) == ("network", "The package index could not be reached.")
    assert "HTTPS_PROXY" in failed["advice"] and failed["advice"].endswith("complete are kept.")
    assert run()[-1]["program"], "the installation fails although the index is available"


@pytest.mark.usefixtures("uv")
def test_proxy_refuses(run: Run) -> None:
    proxy = "http://me:secret@127.0.0.1:9"
    failed = run(status=1, PIP_INDEX_URL="https://index.invalid/simple", HTTPS_PROXY=proxy)[-1]
    assert (failed["kind"], failed["error"]) == ("proxy", "The proxy http://127.0.0.1:9 refused the connection.")
    assert "secret" not in json.dumps(failed)


@pytest.mark.usefixtures("uv")
def test_no_such_package(run: Run, tmp_path: Path) -> None:
    for name in ("no-such-server", str(tmp_path / "no.whl")):
        failed = run("--package", name, "--setting", "the setting `x`", status=1)[-1]
        assert failed["kind"] == "package"
        assert name in failed["error"] and "Correct the setting `x`" in failed["advice"]


@pytest.mark.usefixtures("uv")
def test_interrupted_and_repaired(run: Run, begin: Any, folder: Path, served: Package) -> None:
    """The network fails while the server is downloaded. Later, the editor is closed while the model is downloaded."""
    served.index.broken_at[f"/files/{WHEEL}"] = 100
    assert run(status=1)[-1]["kind"] in {"network", "other"}
    assert folder.exists() and not (folder / "repoformer-lsp.installed").exists(), (
        "an incomplete environment is marked as installed"
    )

    served.index.stall_at[hub_path(served.card)] = 1 << 20
    with begin() as process:
        while "Downloading the model" not in process.stdout.readline():
            assert process.poll() is None
        assert served.index.stalled.wait(60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 1
    served.index.stall_at.clear()
    served.index.resume.set()

    (folder / "bin" / "repoformer-lsp").unlink()
    told = run()
    assert told[0]["message"] == "Creating an environment", "an environment without its program is kept"
    assert told[-1]["warning"] == ""


@pytest.mark.usefixtures("uv")
def test_two_at_a_time(run: Run, begin: Any, served: Package) -> None:
    served.index.stall_at[hub_path(served.card)] = 1 << 20
    with begin() as process:
        assert served.index.stalled.wait(120)
        failed = run(status=1)[-1]
        assert (failed["kind"], failed["error"]) == ("busy", "Another window is installing the server.")
        served.index.resume.set()
        out, _ = process.communicate()
    assert json.loads(out.splitlines()[-1])["program"]


def test_a_folder_with_other_files_is_left_alone(run: Run, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")
    assert run(status=1)[-1]["kind"] == "folder"
    assert (folder / "thesis.tex").exists()


OUTPUTS = {
    "disk": ["ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"],
    "certificate": [
        "error: Failed to fetch: `https://pypi.org/simple/x/`",
        "  invalid peer certificate: UnknownIssuer",
    ],
    "network": ["error: Request failed after 3 retries", "  Caused by: error sending request for url", "  dns error"],
    "venv": ["The virtual environment was not created successfully because ensurepip is not available."],
    "package": [
        "  × No solution found when resolving dependencies:",
        "Because x was not found in the package registry",
    ],
    "build": ["CMake Error: CMAKE_C_COMPILER not set", "ERROR: Failed building wheel for llama-cpp-python"],
    "busy": ["error: failed to remove file `repoformer-lsp.exe`: Access is denied. (os error 5)"],
    "other": ["", "Segmentation fault", ""],
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_what_failed_programs_write_is_explained(kind: str) -> None:
    explained = runpy.run_path(str(SCRIPT))["explained"]
    failed = explained(OUTPUTS[kind], Path("/data/server"), "x", "the setting")
    assert failed.kind == kind
    assert failed.advice.replace("{again}", "").count("{") == 0
    assert failed.error.endswith(".") or kind == "other"
