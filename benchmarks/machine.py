"""Describe the machine on which a benchmark runs, because times of different machines cannot be compared."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe() -> str:
    """Return the processor, the number of cores, the system, and the version of Python in one line."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = (
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        )
        model = next(names, model)
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
