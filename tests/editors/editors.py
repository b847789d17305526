"""Install the editors for the tests, and report after a run which editors were tested and which were not.

Each editor has a script in `install/`, which installs it once into the user's cache. The scripts need Debian, and some
programs need root. If an editor cannot be installed, its tests are skipped, and the last lines of the run say so in
capitals. In CI on Debian, its tests fail instead, so that CI does not pass without them.
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
    """The editor that a script of `install/` installs, and the programs that the script can install only as root."""

    name: str
    programs: tuple[str, ...] = ()

    @property
    def obstacle(self) -> str | None:
        """The reason why the editor cannot be installed on this machine, or None if it can be."""
        if not DEBIAN:
            return "its script needs Debian's packages, and this system is not Debian"
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
    """What a run records for its report.

    `tested` has the names of editors, `untested` has other names with the reason. `times` has the name of the editor,
    the event, and the seconds from the event to ghost text.
    """

    tested: set[str] = field(default_factory=set)
    untested: dict[str, str] = field(default_factory=dict)
    times: list[tuple[str, str, float]] = field(default_factory=list)


SEEN = Seen()


def install(key: str) -> Path:
    """Install an editor if it is not installed yet, and return its folder.

    Skip the test if the editor cannot be installed on this machine. Fail the test if the installation fails, or if an
    editor cannot be installed in CI on Debian.
    """
    editor = EDITORS[key]
    if obstacle := editor.obstacle:
        SEEN.untested[editor.name] = obstacle
        if DEBIAN and os.environ.get("CI"):
            pytest.fail(f"{editor.name} must be tested in CI, but cannot be installed: {obstacle}")
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
    """Measure the seconds from an event, such as a key, to ghost text, for the report after the run."""

    def __init__(self, editor: str) -> None:
        self._editor = editor
        self.start()

    def start(self) -> None:
        """Measure from now on."""
        self._started = time.monotonic()

    def lap(self, what: str) -> None:
        """Record the seconds since the last start. `what` names the event at the start."""
        SEEN.times.append((self._editor, what, time.monotonic() - self._started))


def summary() -> list[str]:
    """Return the lines of the report on a run. The list is empty if the run had no test of an editor."""
    lines = [f"{name}: tested" for name in sorted(SEEN.tested)]
    lines += [f"{name}: NOT TESTED, {why}" for name, why in sorted(SEEN.untested.items())]
    lines += [f"{editor}: {seconds:.2f} s from {what} to ghost text" for editor, what, seconds in SEEN.times]
    return lines
