"""Real editors, installed where they can be; the folder that they open; a home directory of its own for each test.

An editor is installed into the user's cache by a script of `install/`. On Debian (and so in CI) a failing script fails
the tests: they are skipped only where the script cannot work at all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest

from tests.editors.wire import Wire
from tests.editors.workspace import lay_out

INSTALL = Path(__file__).with_name("install")
REPOSITORY = Path(__file__).parents[2]
PICTURES = REPOSITORY / "docs" / "editors"


def install(name: str) -> Path:
    """Run an install script; returns the folder it installed into. Skips where there is no Debian to install on."""
    folder = Path(platformdirs.user_cache_dir("repoformer-lsp", appauthor=False), "editors", name)
    if not Path("/etc/debian_version").exists():
        pytest.skip(f"NOT TESTED: {name} is installed from Debian's packages, and this is no Debian")
    log = folder.with_name(f"{name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        done = subprocess.run(
            [INSTALL / f"{name}.sh", folder],
            env={**os.environ, "PYTHON": sys.executable},
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )
    assert done.returncode == 0, f"{name} could not be installed:\n{log.read_text()[-3000:]}"
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The workspace."""
    return lay_out(tmp_path / "garden")


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of a person who has nothing yet."""
    place = tmp_path / "home"
    place.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {
        **kept,
        "LANG": "C.UTF-8",
        "HOME": str(place),
        "XDG_CONFIG_HOME": str(place / ".config"),
        "XDG_CACHE_HOME": str(place / ".cache"),
        "XDG_STATE_HOME": str(place / ".local" / "state"),
        "XDG_DATA_HOME": str(place / ".local" / "share"),
        "OMP_WAIT_POLICY": "passive",  # tests share the machine with whatever else runs on it
    }


@pytest.fixture
def wire(tmp_path: Path, model: Path) -> Wire:
    """A server with the default model, its talk written down."""
    return Wire(tmp_path / "wire.jsonl", model)


@pytest.fixture
def keep(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Put a screenshot into the documentation, when `REPOFORMER_SCREENSHOTS` is set: pictures differ in every run."""

    def keep(picture: Path, name: str) -> None:
        if os.environ.get("REPOFORMER_SCREENSHOTS"):
            PICTURES.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(picture, PICTURES / name)

    return keep
