"""The versions that CI installs (`.ci/lock.txt`) satisfy the requirements of pyproject.toml."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hatchling.metadata.core import ProjectMetadata
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = (ROOT / ".ci" / "lock.txt").read_text("utf-8")
EXCLUDED = {"torch", "repoformer-lsp"}
SYSTEMS = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}


def wanted() -> list[Requirement]:
    project = ProjectMetadata(str(ROOT), None).core
    development = [Requirement(each) for each in project.optional_dependencies["dev"]]
    included = {extra for each in development if each.name == "repoformer-lsp" for extra in each.extras}
    extras = [Requirement(each) for extra in included for each in project.optional_dependencies[extra]]
    every = [*map(Requirement, project.dependencies), *development, *extras]
    return [each for each in every if canonicalize_name(each.name) not in EXCLUDED]


def locked() -> list[Requirement]:
    return [Requirement(line.rstrip("\\ ")) for line in LOCK.splitlines() if re.match(r"[a-z0-9]", line)]


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_lock_has_each_dependency_once(python: str, system: str) -> None:
    here = {
        "python_version": python, "python_full_version": f"{python}.0", "implementation_name": "cpython",
        "platform_python_implementation": "CPython", "sys_platform": system, "platform_system": SYSTEMS[system],
        "os_name": "nt" if system == "win32" else "posix",
    }  # fmt: skip
    pins: dict[str, list[str]] = {}
    for pin in locked():
        if pin.marker is None or pin.marker.evaluate(here):
            (specifier,) = pin.specifier
            pins.setdefault(canonicalize_name(pin.name), []).append(specifier.version)
    assert not [name for name, versions in pins.items() if len(versions) > 1]
    for each in wanted():
        if each.marker is None or each.marker.evaluate(here):
            (version,) = pins.get(canonicalize_name(each.name), ["none"])
            assert version != "none" and each.specifier.contains(version), f"{each}: {version}; run .ci/lock"


def test_the_lock_holds_versions_and_hashes_alone() -> None:
    assert "://" not in LOCK and " @ " not in LOCK, "the lock contains the address of an index or a file"
    assert len(re.findall(r"(?m)^[a-z0-9].*\\\n    --hash=sha256:", LOCK)) == len(locked())


def test_the_hook_before_commits_has_the_linter_of_ci() -> None:
    (hook,) = re.findall(r"ruff==([\d.]+)", (ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    (lock,) = [str(pin.specifier) for pin in locked() if pin.name == "ruff"]
    assert lock == f"=={hook}", "copy the version of ruff from .ci/lock.txt to .pre-commit-config.yaml"
