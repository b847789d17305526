"""The postings of a query's words, gathered once, and how rare each word is in the whole index.

Rarity is judged over live chunks in all parts together. Counting the dead too, those replaced but not yet merged away,
would be cheaper and would make an index that was edited rank otherwise than one built from scratch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from indexer.arrays import join, repeat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.segment import Part


@dataclass(frozen=True, slots=True)
class Gathered:
    """The postings of a query's words in one part, word after word: `lengths` has how many each word has."""

    chunks: NDArray[np.int32]
    counts: NDArray[np.uint8]
    lengths: NDArray[np.int64]

    def spread(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the value of each posting's word."""
        return repeat(values, self.lengths)


def gather(parts: Sequence[Part], query: NDArray[np.uint64]) -> tuple[list[Gathered], NDArray[np.float64]]:
    """Return the query's postings in each part, and each word's inverse document frequency.

    The latter is log(1 + (N - n + 1/2) / (n + 1/2)) for a word that n of N live chunks hold.
    """
    gathered = []
    total, holding = 0, np.zeros(len(query))
    for part in parts:
        postings = part.segment.words
        runs = postings.runs(query)
        chunks = join([postings.chunks[run] for run in runs], np.int32)
        counts = join([postings.counts[run] for run in runs], np.uint8)
        lengths = np.array([run.stop - run.start for run in runs], np.int64)
        gathered.append(Gathered(chunks, counts, lengths))
        alive = part.live[chunks]
        ends = [0, *np.cumsum(lengths).tolist()]
        holding += [np.count_nonzero(alive[start:end]) for start, end in pairwise(ends)]
        total += int(np.count_nonzero(part.live))
    rarity: NDArray[np.float64] = np.log1p((total - holding + 0.5) / (holding + 0.5))
    return gathered, rarity
