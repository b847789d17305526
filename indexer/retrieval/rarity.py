"""The rarity of a word in the whole index: its inverse document frequency.

Only the live chunks of all segments count. Counting replaced chunks too, until a merge removes them, would be cheaper,
but then an edited index would rank differently from one built from scratch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.segment import MaskedSegment


def rarity(segments: Sequence[MaskedSegment], runs: Sequence[Sequence[slice]]) -> NDArray[np.float64]:
    """Return log(1 + (N - n + 1/2) / (n + 1/2)) for each word, where n of the N live chunks contain the word.

    `runs` has, for each segment, one slice of the segment's postings for each word. `segments` must not be empty.
    """
    total, holding = 0, np.zeros(len(runs[0]))
    for masked, found in zip(segments, runs, strict=True):
        if masked.documents.all():
            holding += [run.stop - run.start for run in found]
        else:
            chunks = masked.segment.words.chunks
            holding += [np.count_nonzero(masked.live[chunks[run]]) for run in found]
        total += int(np.count_nonzero(masked.live))
    result: NDArray[np.float64] = np.log1p((total - holding + 0.5) / (holding + 0.5))
    return result
