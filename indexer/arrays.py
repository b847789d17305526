"""numpy operations that keep Python's lock, done in blocks.

Sorting, indexing and comparing arrays let other threads run; `repeat` and `cumsum` do not, for as long as they take,
and while a workspace of millions of lines is merged that would be long enough for a person typing to feel it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)
BLOCK = 1 << 16  # elements: well under a millisecond each


def repeat(values: NDArray[T], counts: NDArray[np.integer[Any]]) -> NDArray[T]:
    """Return `numpy.repeat(values, counts)`."""
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
    """Return `numpy.cumsum(values)` as 64-bit integers."""
    result = np.empty(len(values), np.int64)
    total = 0
    for start in range(0, len(values), BLOCK):
        block = result[start : start + BLOCK]
        np.cumsum(values[start : start + BLOCK], out=block)
        block += total
        total = int(block[-1])
    return result


def join(arrays: Sequence[NDArray[T]], dtype: type[T]) -> NDArray[T]:
    """Join arrays; an empty sequence gives an empty array of the type."""
    return np.concatenate(arrays) if arrays else np.empty(0, dtype)
