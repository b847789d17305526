"""Find the common prefix of two texts or two sequences of tokens."""

from __future__ import annotations

from typing import TypeVar

S = TypeVar("S", str, bytes, list[int])


def common_prefix(left: S, right: S) -> int:
    """Return the number of items (characters, bytes or tokens) at the beginning that both sequences share."""
    # Most pairs are a prompt or a file and its state one keystroke earlier, which share nearly everything. A binary
    # search with native comparisons of slices is then faster than a loop over the items.
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
