"""Fetch packages with the clients of their registries, and read the source files in them.

The clients `pip`, `npm` and `apt-get` use the proxies, mirrors and credentials of the machine, and check hashes. No
code of a package runs: PyPI packages are fetched as wheels (without `setup.py`), npm packages are fetched with
`--ignore-scripts`, and of Debian source packages only the upstream archive is read. The drawback is that wheels rarely
contain a project's tests.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from .manifest import TrainingError

Split = Literal["train", "valid", "test"]
Registry = Literal["pypi", "npm", "debian"]

# The names of RepoEval's repositories and of their packages. Packages with these names are excluded from training.
REPOEVAL = frozenset({
    "diffusers", "nerfstudio", "awslabs-fortuna", "fortuna", "evaluate", "google-vizier", "vizier", "federatedscope",
    "torchrl", "rl", "ace", "trlx", "tracr", "omnivore", "lightweight-mmm", "lightweight_mmm", "betty", "betty-ml",
    "patchcore", "imagen-pytorch", "redframes",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Package:
    """One row of the package list. `version` is the version in the registry; for Debian, that of the source package."""

    split: Split
    registry: Registry
    name: str
    version: str
    license: str

    @property
    def folder(self) -> str:
        """The name of the package's folder, without path separators."""
        return f"{self.registry}~{self.name.replace('/', '~')}"


def read_list(path: Path) -> list[Package]:
    """Return the packages of a list (CSV with a header). Raises a `TrainingError` that names an invalid row."""
    packages: list[Package] = []
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            if None in row or None in row.values() or set(row) != {"split", "registry", "name", "version", "license"}:
                raise TrainingError(f"{path}:{number}: needs split,registry,name,version,license")
            if row["split"] not in get_args(Split) or row["registry"] not in get_args(Registry):
                raise TrainingError(f"{path}:{number}: unknown split or registry: {row['split']}, {row['registry']}")
            if row["name"].lower() in REPOEVAL:
                raise TrainingError(f"{path}:{number}: {row['name']} is a RepoEval repository")
            packages.append(Package(**row))  # type: ignore[arg-type]
    names = [package.folder for package in packages]
    if duplicates := {name for name in names if names.count(name) > 1}:
        raise TrainingError(f"{path}: listed twice: {', '.join(sorted(duplicates))}")
    return packages


def fetch(package: Package, downloads: Path) -> Path:
    """Return the path of the package's archive in `downloads`. Fetch the archive if it is not there.

    Raises `TrainingError` if the archive cannot be fetched.
    """
    folder = downloads / package.folder
    if archive := _archive_in(folder):
        return archive
    folder.mkdir(parents=True, exist_ok=True)
    name, version = package.name, package.version
    if package.registry == "pypi":
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        _run_client([*pip, "--only-binary", ":all:", "--dest", str(folder), f"{name}=={version}"], folder)
    elif package.registry == "npm":
        _run_client(["npm", "pack", "--silent", "--ignore-scripts", f"{name}@{version}"], folder)
    else:
        _run_client(["apt-get", *_apt_options(downloads), "--download-only", "source", f"{name}={version}"], folder)
    if archive := _archive_in(folder):
        return archive
    raise TrainingError(f"{name} {version}: the registry's client delivered no archive")


def source_files(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the relative path and the content of each regular file. The top folder of a tar archive is removed."""
    if archive.suffix in {".whl", ".zip"}:
        with zipfile.ZipFile(archive) as wheel:
            for info in wheel.infolist():
                if not info.is_dir():
                    yield info.filename, wheel.read(info)
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            _, _, path = member.name.removeprefix("./").partition("/")
            if member.isreg() and path and (file := tar.extractfile(member)):
                yield path, file.read()


def _archive_in(folder: Path) -> Path | None:
    if not folder.is_dir():
        return None
    endings = (".whl", ".tgz", ".tar.gz", ".tar.xz", ".tar.bz2")
    found = [path for path in folder.iterdir() if path.name.endswith(endings) and ".debian.tar." not in path.name]
    # A Debian package may have several upstream archives. The main one has the shortest name.
    return min(found, key=lambda path: len(path.name), default=None)


def _apt_options(downloads: Path) -> list[str]:
    """Return options for apt-get that enable source packages.

    With these options, apt-get uses its own package lists in `downloads`, so that the system's lists do not change.
    """
    state = downloads / "apt"
    options = [
        "-qq", "-o", "Dir::Etc::SourceList=/dev/null", "-o", f"Dir::Etc::SourceParts={state / 'parts'}",
        "-o", f"Dir::State::Lists={state / 'lists'}", "-o", f"Dir::Cache={state / 'cache'}",
        "-o", "APT::Sandbox::User=root",
    ]  # fmt: skip
    if state.is_dir():
        return options
    for part in ("parts", "lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True, exist_ok=True)
    etc = Path("/etc/apt")
    for path in (*etc.glob("sources.list.d/debian*.sources"), *etc.glob("sources.list")):
        lines = path.read_text("utf-8").splitlines()
        converted = [line.replace("Types: deb", "Types: deb-src") if "deb-src" not in line else line for line in lines]
        converted = ["deb-src " + line[4:] if line.startswith("deb ") else line for line in converted]
        ending = ".list" if path.suffix == ".list" else ".sources"
        (state / "parts" / (path.stem.replace(".", "-") + ending)).write_text("\n".join(converted) + "\n", "utf-8")
    _run_client(["apt-get", *options, "update"], downloads)
    return options


def _run_client(command: list[str], folder: Path) -> None:
    """Run a registry's client in `folder`. Raises `TrainingError` with the last line of its output if it fails."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    except FileNotFoundError:
        raise TrainingError(f"{command[0]} is needed to fetch this package and is not installed") from None
    except subprocess.TimeoutExpired:
        raise TrainingError(f"{command[0]} did not finish in 15 minutes") from None
    if done.returncode:
        output = (done.stderr or done.stdout).strip().splitlines()
        raise TrainingError(f"{command[0]}: {output[-1] if output else f'exit status {done.returncode}'}")
