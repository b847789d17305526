"""Compute the evidence: the numbers that a gate takes from the hits of a search.

The evidence is information that the model does not have when it decides, because it has not read the chunks yet.

The strongest evidence is whether a chunk contains the words just before the cursor. If it does, a model that reads the
chunk sees how the code continues after these words. The similarity of whole chunks does not predict whether retrieval
helps (`docs/experiments.md`, entry 23). The evidence also counts the names in the last lines before the cursor that the
chunks define. The computation takes microseconds. Serving, evaluation and fitting use the same function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from indexer.model import Cursor, Hit
from indexer.retrieval.ngram import ngrams, tokenize
from indexer.words import last_lines, words

NAME_LINES = 3  # the names come from this number of lines before the cursor, including the cursor's own line
NAME_HITS = 3  # the definitions come from this number of hits, which is about as many as fit into a prompt
OVERLAP_TOKENS = 8  # the trigrams come from this number of tokens (words, punctuation) before the cursor
# The maximum of `Evidence.match`, in tokens. With a longer match, it is not more probable that retrieval helps.
MAX_MATCH = 16
# Only this number of characters of the hits, and before the cursor, is used. About as many characters of the hits fit
# into a prompt.
OVERLAP_CHARACTERS = 900


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence that the hits of a search give.

    `best` and `second` are the two greatest Jaccard similarities among the hits, in [0, 1] (0 if there are fewer hits).
    `names` is the number of names in the last lines before the cursor that the first hits define. `overlap` is the
    share of the token trigrams just before the cursor that the hits contain, in [0, 1]. `match` is the largest number
    of tokens just before the cursor, at most `MAX_MATCH`, that the hits contain in the same order without a gap.
    """

    best: float
    second: float
    names: int
    overlap: float
    match: int


def evidence(cursor: Cursor, hits: Sequence[Hit]) -> Evidence:
    """Return the evidence of `hits` (best first) at `cursor`."""
    best, second = sorted([*(hit.score for hit in hits), 0.0, 0.0], reverse=True)[:2]
    defined = {symbol for hit in hits[:NAME_HITS] for symbol in hit.chunk.symbols}
    names = len(defined & words(last_lines(cursor.prefix, NAME_LINES)))
    before = tokenize(cursor.prefix[-OVERLAP_CHARACTERS:])
    found = tokenize("\n".join(hit.chunk.text for hit in hits)[:OVERLAP_CHARACTERS])
    return Evidence(best, second, names, overlap(before, found), longest_match(before, found))


def overlap(before: list[str], found: list[str]) -> float:
    """Return the share of the last trigrams of `before` that `found` contains, in [0, 1].

    `before` has the tokens (words and punctuation) before the cursor, and `found` those of the first hits. The share is
    0 if `before` has fewer than three tokens.
    """
    wanted = ngrams(before[-OVERLAP_TOKENS:], 3).keys()
    return len(wanted & ngrams(found, 3).keys()) / len(wanted) if wanted else 0.0


def longest_match(before: list[str], found: list[str]) -> int:
    """Return how many tokens at the end of `before`, at most `MAX_MATCH`, occur in `found` in the same order.

    No other token may be between them in `found`.
    """
    longest = 0
    for end in range(1, len(found) + 1):
        length = 0
        while length < min(MAX_MATCH, len(before), end) and found[end - 1 - length] == before[-1 - length]:
            length += 1
        longest = max(longest, length)
    return longest
