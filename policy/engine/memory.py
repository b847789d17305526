"""Whether a model fits into memory, asked before it is loaded: a machine that swaps is worse than no completion."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import psutil

from policy.errors import ModelTooLarge
from policy.models.shards import shards_of

# Linux's control groups, in either version: where they are, the files of a group that say what it may use and what it
# uses, and the part of that which is a cache of files that the kernel gives up.
_GROUPS = (
    (Path("/sys/fs/cgroup"), "", "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
_MEMBERSHIP = Path("/proc/self/cgroup")


def check_fits(model: Path, available: int | None = None) -> None:
    """Raise `ModelTooLarge` where the weights of `model` are larger than `available` bytes (what is free)."""
    size, free = size_of(model), available_memory() if available is None else available
    if size > free:
        raise ModelTooLarge(
            f"{model.name} takes {size / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free. Choose a smaller "
            "model or a quantisation with fewer bits (setting `model`), or close what uses the memory."
        )


def size_of(model: Path) -> int:
    """Bytes of a model, all parts of it where it is split."""
    return sum(part.stat().st_size for part in shards_of(model) if part.is_file())


def available_memory() -> int:
    """Bytes that can be had without swapping; at most what is left of what this process's control groups may use."""
    free: float = psutil.virtual_memory().available
    for root, controller, limit, usage, reclaimable in _GROUPS:
        inside = root / _group_of(controller).lstrip("/")
        # A group's limit counts for those inside it; in a container the path may be one that only the host has.
        for group in dict.fromkeys((inside, *inside.parents, root)):
            if group.is_relative_to(root):
                free = min(free, _left(group, limit, usage, reclaimable))
    return max(int(free), 0)


def _group_of(controller: str) -> str:
    """The path of this process's control group below the root."""
    with contextlib.suppress(OSError, ValueError):
        for line in _MEMBERSHIP.read_text().splitlines():
            _, names, path = line.split(":", 2)
            if controller in names.split(","):
                return path
    return ""


def _left(group: Path, limit: str, usage: str, reclaimable: str) -> float:
    """Bytes that a group may still use; infinite where it has no limit."""
    try:
        left = int((group / limit).read_text()) - int((group / usage).read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return math.inf
    with contextlib.suppress(OSError, ValueError):
        rows = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        left += next((int(row[1]) for row in rows if row[0] == reclaimable), 0)
    return left
