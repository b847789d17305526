"""Find which instruction sets this machine's CPU has, by asking the operating system.

The check runs before a prebuilt library is loaded, because an instruction that the CPU lacks ends the process with
SIGILL, without a message.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

X86_64 = frozenset({"x86_64", "amd64"})
ARM64 = frozenset({"aarch64", "arm64"})

_CPUINFO = Path("/proc/cpuinfo")
_PF_AVX2_INSTRUCTIONS_AVAILABLE = 40  # the number of this feature in winnt.h


def machine() -> str:
    """Return the machine's architecture in lower case, as Python names it: "x86_64", "arm64"."""
    return platform.machine().lower()


def missing(needed: Collection[str]) -> list[str]:
    """Return the instruction sets of `needed` (in Linux's names) that this CPU lacks.

    The list is empty if the system does not say which instruction sets the CPU has.
    """
    if not needed or (present := _instructions()) is None:
        return []
    return sorted(set(needed) - present)


def has(wanted: Collection[str]) -> bool:
    """Return whether the system says that this CPU has all instruction sets of `wanted` (in Linux's names)."""
    present = _instructions()
    return present is not None and set(wanted) <= present


def instructions_of(cpuinfo: str) -> set[str] | None:
    """Return the instruction sets that the text of `/proc/cpuinfo` lists for the first CPU, or None without a list."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() in {"flags", "features"}:
            return set(value.split())
    return None


def _instructions() -> set[str] | None:
    try:
        if sys.platform == "win32":
            import ctypes

            # Windows reports only AVX2. Every CPU with AVX2 (since Intel Haswell, AMD Excavator) has the others too.
            has_avx2 = ctypes.windll.kernel32.IsProcessorFeaturePresent(_PF_AVX2_INSTRUCTIONS_AVAILABLE)
            return {"avx2", "bmi2", "f16c", "fma"} if has_avx2 else {"sse4_2"}
        if sys.platform == "darwin":
            command = ["sysctl", "-n", "machdep.cpu.features", "machdep.cpu.leaf7_features"]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
            return set(done.stdout.lower().split())
        return instructions_of(_CPUINFO.read_text("utf-8", "replace"))
    except (OSError, subprocess.SubprocessError):
        return None
