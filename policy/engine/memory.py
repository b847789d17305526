"""Whether a model fits into memory, asked before it is loaded: a machine that swaps is worse than no completion."""

from __future__ import annotations

from pathlib import Path

import psutil

from policy.errors import ModelTooLarge
from policy.models.shards import shards_of

# What a container may use, in either version of Linux's control groups.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


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
    """Bytes that can be had without swapping; at most what this container may use at all."""
    free: int = psutil.virtual_memory().available
    for path in _LIMITS:
        try:
            free = min(free, int(path.read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return free
