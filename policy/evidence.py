"""What retrieval says of itself before anything is generated: the half of a decision that the model cannot know.

Beside the similarity of what was found stands whether it defines a name that the cursor's lines use: code that calls
what it cannot see is what retrieved code helps most. Computed from the hits alone, in microseconds; the same function
serves evaluation, fitting and any gate that looks at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from indexer.model import Cursor, Hit
from indexer.words import last_lines, words

NAME_LINES = 3  # lines before the cursor, its own included, whose names count
NAME_HITS = 3  # hits that are looked at: about as many as a prompt has room for


@dataclass(frozen=True, slots=True)
class Evidence:
    """Jaccard similarities of the best and the second best hit (0 where there is none), and how many names of the
    cursor's lines the first hits define.
    """

    best: float
    second: float
    names: int


def evidence(cursor: Cursor, hits: Sequence[Hit]) -> Evidence:
    """What `hits`, best first, are worth at `cursor`."""
    best, second = sorted([*(hit.score for hit in hits), 0.0, 0.0], reverse=True)[:2]
    defined = {symbol for hit in hits[:NAME_HITS] for symbol in hit.chunk.symbols}
    return Evidence(best, second, len(defined & words(last_lines(cursor.prefix, NAME_LINES))))
