"""How rare a word is in the whole index: its inverse document frequency.

Rarity is judged over live chunks in all parts together. Counting the dead too, those replaced but not yet merged away,
would be cheaper and would make an index that was edited rank otherwise than one built from scratch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.segment import Part


def rarity(parts: Sequence[Part], runs: Sequence[Sequence[slice]]) -> NDArray[np.float64]:
    """Return log(1 + (N - n + 1/2) / (n + 1/2)) for each word, which n of N live chunks hold.

    `runs` has, for each part, where the postings of each word lie in it; there is at least one part.
    """
    total, holding = 0, np.zeros(len(runs[0]))
    for part, of_part in zip(parts, runs, strict=True):
        if part.documents.all():
            holding += [run.stop - run.start for run in of_part]
        else:
            chunks = part.segment.words.chunks
            holding += [np.count_nonzero(part.live[chunks[run]]) for run in of_part]
        total += int(np.count_nonzero(part.live))
    result: NDArray[np.float64] = np.log1p((total - holding + 0.5) / (holding + 0.5))
    return result
