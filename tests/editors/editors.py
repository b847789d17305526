"""Install the editors for the tests, and report at the end which editors were tested and which not.

A script of `install/` installs each editor into the user's cache, once. This needs Debian, and root for some programs.
If an editor cannot be installed, its tests are skipped, and the last lines of the run say so in capitals. With `CI` set
on Debian, its tests fail instead, because a missing check must not look like a passed one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import platformdirs
import pytest

SCRIPTS = Path(__file__).with_name("install")
CACHE = Path(platformdirs.user_cache_dir("repoformer-lsp", appauthor=False), "editors")
DEBIAN = Path("/etc/debian_version").exists()


@dataclass(frozen=True)
class Editor:
    """One script of `install/`: the editor that it installs, and the programs that it can install only as root."""

    name: str
    programs: tuple[str, ...] = ()

    @property
    def obstacle(self) -> str | None:
        """Why the editor cannot be installed on this machine; None if it can."""
        if not DEBIAN:
            return "it is installed from Debian's packages, and this system is not Debian"
        missing = [program for program in self.programs if not shutil.which(program)]
        if missing and os.geteuid() != 0:
            return f"root has to install {' and '.join(missing)}"
        return None


EDITORS = {
    "neovim": Editor("Neovim 0.12"),
    "neovim-0.11": Editor("Neovim 0.11"),
    "emacs": Editor("Emacs 30", ("emacs", "tmux")),
    "code-server": Editor("VS Code", ("chromium", "npm")),
    "helix": Editor("Helix"),
}


@dataclass
class Seen:
    """The results of this run: the tested editors, the others with the reason, and times to ghost text."""

    tested: set[str] = field(default_factory=set)
    untested: dict[str, str] = field(default_factory=dict)
    times: list[tuple[str, str, float]] = field(default_factory=list)


SEEN = Seen()


def install(key: str) -> Path:
    """Install an editor unless it is installed, and return its folder. Skip or fail the test if that is impossible."""
    editor = EDITORS[key]
    if obstacle := editor.obstacle:
        SEEN.untested[editor.name] = obstacle
        if DEBIAN and os.environ.get("CI"):
            pytest.fail(f"{editor.name} has to be tested here, but {obstacle}")
        pytest.skip(f"NOT TESTED: {editor.name}: {obstacle}")
    try:
        folder = _run(key)
    except subprocess.CalledProcessError as error:
        SEEN.untested[editor.name] = "its installation failed"
        pytest.fail(f"{editor.name} could not be installed:\n{error.output[-3000:]}")
    SEEN.tested.add(editor.name)
    return folder


@cache
def _run(key: str) -> Path:
    folder = CACHE / key
    CACHE.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [SCRIPTS / f"{key}.sh", folder],
        env={**os.environ, "PYTHON": sys.executable},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return folder


class Stopwatch:
    """Measures the seconds from opening a file, and from a key, to ghost text, for the report at the end."""

    def __init__(self, editor: str) -> None:
        self._editor = editor
        self.start()

    def start(self) -> None:
        """Start again."""
        self._started = time.monotonic()

    def lap(self, what: str) -> None:
        """Record the seconds since the start."""
        SEEN.times.append((self._editor, what, time.monotonic() - self._started))


def summary() -> list[str]:
    """Return the lines of the report at the end of a run. There are none if the run had no test of an editor."""
    lines = [f"{name}: tested" for name in sorted(SEEN.tested)]
    lines += [f"{name}: NOT TESTED, {why}" for name, why in sorted(SEEN.untested.items())]
    lines += [f"{editor}: {seconds:.2f} s from {what} to ghost text" for editor, what, seconds in SEEN.times]
    return lines
