"""Split numpy operations that hold Python's global lock into blocks, so that other threads can run in between.

numpy releases the lock while it sorts, indexes or compares arrays, but not in `repeat` and `cumsum`. On a workspace of
millions of lines, one call of these two would hold the lock long enough to delay a keystroke noticeably.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)
BLOCK = 1 << 16  # elements; one block takes well under a millisecond


def repeat(values: NDArray[T], counts: NDArray[np.integer[Any]]) -> NDArray[T]:
    """Return `numpy.repeat(values, counts)`, computed block by block."""
    ends = cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    result = np.empty(total, values.dtype)
    start = 0
    while start < len(values):
        done = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, done + BLOCK, side="right")), start + 1)
        result[done : ends[stop - 1]] = np.repeat(values[start:stop], counts[start:stop])
        start = stop
    return result


def cumsum(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return `numpy.cumsum(values)` as 64-bit integers, computed block by block."""
    result = np.empty(len(values), np.int64)
    total = 0
    for start in range(0, len(values), BLOCK):
        block = result[start : start + BLOCK]
        np.cumsum(values[start : start + BLOCK], out=block)
        block += total
        total = int(block[-1])
    return result


def join(arrays: Sequence[NDArray[T]], dtype: type[T]) -> NDArray[T]:
    """Join arrays. An empty sequence gives an empty array of type `dtype`."""
    return np.concatenate(arrays) if arrays else np.empty(0, dtype)
