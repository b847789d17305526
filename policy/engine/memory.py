"""Check whether a model fits into memory before it is loaded. A machine that swaps is worse than no completion."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import psutil

from policy.errors import ModelTooLarge
from policy.models.shards import shards_of

# For each version of Linux's control groups (2, then 1): the root folder, the controller, the file with a group's
# limit, the file with its usage, and the field of `memory.stat` with the size of the file cache. The usage includes the
# file cache, although the kernel can free it.
_GROUPS = (
    (Path("/sys/fs/cgroup"), "", "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
_MEMBERSHIP = Path("/proc/self/cgroup")


def check_fits(model: Path, available: int | None = None) -> None:
    """Raise `ModelTooLarge` if the weights of `model` are larger than `available` bytes (default: free memory)."""
    size, free = size_of(model), available_memory() if available is None else available
    if size > free:
        raise ModelTooLarge(
            f"{model.name} needs {size / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free. Choose a smaller "
            "model or a quantization with fewer bits (setting `model`), or close other programs."
        )


def size_of(model: Path) -> int:
    """Return the size of a model in bytes, including all its shards."""
    return sum(part.stat().st_size for part in shards_of(model) if part.is_file())


def available_memory() -> int:
    """Return the number of bytes that this process can use without swapping and within its control groups' limits."""
    free: float = psutil.virtual_memory().available
    for root, controller, limit, usage, reclaimable in _GROUPS:
        inside = root / _group_of(controller).lstrip("/")
        # A group's limit also applies to the groups inside it, so the limits of all parent folders are read too. In a
        # container, the path may exist only on the host. Then only the root folder has a limit to read.
        for group in dict.fromkeys((inside, *inside.parents, root)):
            if group.is_relative_to(root):
                free = min(free, _left(group, limit, usage, reclaimable))
    return max(int(free), 0)


def _group_of(controller: str) -> str:
    """Return the path of this process's control group for `controller`, below the root folder, or "" if unknown."""
    with contextlib.suppress(OSError, ValueError):
        for line in _MEMBERSHIP.read_text().splitlines():
            _, names, path = line.split(":", 2)
            if controller in names.split(","):
                return path
    return ""


def _left(group: Path, limit: str, usage: str, reclaimable: str) -> float:
    """Return the number of bytes that a group may still use, or infinity if it has no limit."""
    try:
        left = int((group / limit).read_text()) - int((group / usage).read_text())
    except (OSError, ValueError):  # the file does not exist, or contains "max"
        return math.inf
    with contextlib.suppress(OSError, ValueError):
        rows = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        left += next((int(row[1]) for row in rows if row[0] == reclaimable), 0)
    return left
