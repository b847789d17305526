"""`python tools/environment.py [--dev] FOLDER`: create a virtual environment with this project, and show the progress.

The Makefile runs this script with the system's Python, so the script needs only the standard library. The script uses
uv if uv is installed, and pip otherwise. For each step, it prints a title, the time, and how much is downloaded. If a
step fails, the script prints the end of the installer's output.

On Linux, the PyTorch of PyPI is built for CUDA, and has 2 GB that no test needs. So the script installs PyTorch first,
from PyTorch's own index of builds for the CPU. If that index cannot be reached, pip uses the index that it is
configured for.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / ".ci/constraints.txt"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
EVERY = 2.0 if sys.stdout.isatty() else 5.0  # the seconds between two lines of progress
_UNITS = {"k": 1e-3, "M": 1.0, "G": 1e3}


class Step:
    """Runs a command of the installation, and prints its progress. Prints its output only if it fails."""

    def __init__(self, title: str, folder: Path) -> None:
        self._title, self._folder, self._started = title, folder, time.monotonic()
        self._packages, self._megabytes, self._doing = 0, 0.0, ""
        self._before, self._coming = self._installed(), 0
        self._said: list[str] = []
        self._ended = threading.Event()

    def run(self, command: Sequence[str]) -> None:
        """Run the command. If it fails, print the last 30 lines of its output, and exit with status 1."""
        print(f"{self._title} ...", flush=True)
        teller = threading.Thread(target=self._tell, daemon=True)
        teller.start()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=ROOT
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                self._hear(line.rstrip())
        self._ended.set()
        teller.join()
        if process.returncode:
            print("\n".join(self._said[-30:]), file=sys.stderr)
            sys.exit(f"failed ({self._title}): {' '.join(command)}")
        self._say("done")
        print(flush=True)

    def _hear(self, line: str) -> None:
        self._said.append(line)
        if match := re.match(r"\s*(?:Collecting|\+) (\S+)", line):
            self._packages += 1
            self._doing = match[1]
        elif match := re.match(r"\s*Downloading (\S+) \(([\d.]+) ?([kMG])i?B\)", line):
            self._megabytes += float(match[2]) * _UNITS[match[3]]
            self._doing = match[1]
        elif line.startswith("Installing collected packages: "):
            self._coming = line.count(",") + 1
        elif line.startswith(("Installing", "Building", "Preparing")):
            self._doing = line.partition(":")[0][:40]

    def _tell(self) -> None:
        while not self._ended.wait(EVERY):
            if self._coming:
                self._doing = f"unpacked {self._installed() - self._before} of {self._coming}"
            self._say(self._doing)

    def _installed(self) -> int:
        return sum(1 for _ in self._folder.rglob("site-packages/*.dist-info"))

    def _say(self, doing: str) -> None:
        parts = [f"{time.monotonic() - self._started:.0f} s"]
        if self._packages:
            parts.append(f"{self._packages} packages")
        if self._megabytes >= 1:
            parts.append(f"{self._megabytes:.0f} MB")
        text = f"  {', '.join(parts)}: {doing}".removesuffix(": ")
        print(
            f"\r{text[:100]:100}" if sys.stdout.isatty() else text, end="" if sys.stdout.isatty() else "\n", flush=True
        )


def make(folder: Path, dev: bool) -> None:
    """Create or update the environment in `folder`. With `dev`, also install the packages for tests and training."""
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    uv = shutil.which("uv")
    if not _works(python):
        command = (
            [uv, "venv", "--seed", "--clear", "--python", sys.executable]
            if uv
            else [sys.executable, "-m", "venv", "--clear"]
        )
        Step(f"Creating a Python environment in {folder}", folder).run([*command, str(folder)])
    if uv:
        install = [uv, "pip", "install", "--python", str(python), "--no-progress"]
        torch = ["--torch-backend=cpu"] if sys.platform == "linux" else []
    else:
        install = [
            str(python),
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--progress-bar=off",
            "--no-compile",
        ]
        torch = ["--index-url", TORCH_INDEX] if sys.platform == "linux" and _reachable(TORCH_INDEX) else []
    constrained = [*install, "--constraint", str(CONSTRAINTS)]
    if not dev:
        Step("Installing the server from wheels", folder).run([*install, "--editable", "."])
        return
    Step("Installing PyTorch for the CPU (training and its tests)", folder).run([*constrained, *torch, "torch"])
    Step("Installing the tools for development", folder).run([*constrained, "--editable", ".[dev]"])


def _works(python: Path) -> bool:
    try:
        return subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _reachable(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/torch/", timeout=5):
            return True
    except OSError:
        return False


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dev", action="store_true", help="also install the packages for tests and training")
    options = parser.parse_args()
    make(options.folder, options.dev)


if __name__ == "__main__":
    main()
