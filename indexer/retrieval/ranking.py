"""The k best chunks of all parts under some score, in an order that does not depend on how the index is cut up.

Equal scores are common (a Jaccard similarity is a ratio of small numbers), so ties are broken by the document's place
and the line: an index built file by file answers exactly as one built from scratch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from indexer.segment import Part

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Ranked(NamedTuple):
    """A chunk (number `chunk` of part `part`) and its score."""

    score: float
    part: int
    chunk: int


def best(
    parts: Sequence[Part], scores: Iterable[NDArray[np.float64]], k: int, excluded: Collection[int] = ()
) -> list[Ranked]:
    """Return up to `k` live chunks with a score above zero, best first.

    `scores` has an array a part, one score a chunk, which is changed in place. `excluded` are places
    (`segment.place`) of documents that must not answer, such as the cursor's own file.
    """
    if k <= 0:
        return []
    found: list[tuple[float, tuple[int, int], Ranked]] = []
    for number, (part, of_part) in enumerate(zip(parts, scores, strict=True)):
        of_part *= part.live
        for at in excluded:
            for document in np.flatnonzero(part.segment.order == np.uint64(at)).tolist():
                of_part[part.segment.first[document] : part.segment.first[document + 1]] = 0.0
        for chunk in _candidates(of_part, k).tolist():
            ranked = Ranked(float(of_part[chunk]), number, chunk)
            found.append((-ranked.score, part.segment.tie(chunk), ranked))
    found.sort(key=lambda entry: entry[:2])
    return [ranked for _, _, ranked in found[:k]]


def _candidates(scores: NDArray[np.float64], k: int) -> NDArray[np.intp]:
    """Return the chunks that may be among the k best: all with at least the k-th best score, ties included."""
    if len(scores) > k:
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        if threshold > 0:
            return np.flatnonzero(scores >= threshold)
    return np.flatnonzero(scores > 0)
