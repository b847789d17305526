"""What retrieval says of itself before anything is generated: the half of a decision that the model cannot know.

Most of it is whether the code just before the cursor goes on in what was found: where it stands there too, a model that
reads it knows what came next. The similarity of whole chunks does not say that (`docs/experiments.md`, entry 23).
Beside it stands whether the chunks define a name that the cursor's lines use. Computed from the hits alone, in
microseconds; the same function serves evaluation, fitting and any gate that looks at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from indexer.model import Cursor, Hit
from indexer.retrieval.ngram import ngrams, tokenize
from indexer.words import last_lines, words

NAME_LINES = 3  # lines before the cursor, its own included, whose names count
NAME_HITS = 3  # hits that are looked at: about as many as a prompt has room for
OVERLAP_TOKENS = 8  # before the cursor, whose trigrams are looked for; from six to ten make no difference
SHOWN = 900  # characters of chunks in which they are looked for: about what a prompt shows


@dataclass(frozen=True, slots=True)
class Evidence:
    """Jaccard similarities of the best and the second best hit (0 where there is none), how many names of the
    cursor's lines the first hits define, and which share in [0, 1] of the trigrams just before the cursor they hold.
    """

    best: float
    second: float
    names: int
    overlap: float


def evidence(cursor: Cursor, hits: Sequence[Hit]) -> Evidence:
    """What `hits`, best first, are worth at `cursor`."""
    best, second = sorted([*(hit.score for hit in hits), 0.0, 0.0], reverse=True)[:2]
    defined = {symbol for hit in hits[:NAME_HITS] for symbol in hit.chunk.symbols}
    names = len(defined & words(last_lines(cursor.prefix, NAME_LINES)))
    return Evidence(best, second, names, overlap(cursor, hits))


def overlap(cursor: Cursor, hits: Sequence[Hit]) -> float:
    """Which share of the trigrams of words and signs that end L stands in what a prompt shows of `hits`."""
    before = ngrams(tokenize(cursor.prefix[-SHOWN:])[-OVERLAP_TOKENS:], 3).keys()
    shown = ngrams(tokenize("\n".join(hit.chunk.text for hit in hits)[:SHOWN]), 3).keys()
    return len(before & shown) / len(before) if before else 0.0
