"""The evidence for a decision that retrieval gives before the model generates, which the model cannot know.

The strongest evidence is whether a found chunk contains the tokens just before the cursor: a model that reads the chunk
then knows how the code continues there. The similarity of whole chunks does not show this (`docs/experiments.md`, entry
23). The evidence also counts the names in the cursor's lines that the chunks define. It is computed from the hits
alone, in microseconds. Serving, evaluation and fitting use the same function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from indexer.model import Cursor, Hit
from indexer.retrieval.ngram import ngrams, tokenize
from indexer.words import last_lines, words

NAME_LINES = 3  # number of lines up to the cursor, its own included, whose names count
NAME_HITS = 3  # number of hits whose definitions count, about as many as fit into a prompt
OVERLAP_TOKENS = 8  # number of tokens before the cursor whose trigrams count; 6 to 10 give the same results
MAX_MATCH = 16  # tokens; a longer match says no more
OVERLAP_CHARACTERS = 900  # characters of the chunks that are searched for them, about as many as fit into a prompt


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence that the hits of a search give.

    `best` and `second` are the Jaccard similarities of the two best hits (0 if there is none). `names` is how many
    names in the cursor's lines the first hits define. `overlap`, in [0, 1], is the share of the trigrams just before
    the cursor that the hits contain. `match`, at most `MAX_MATCH`, is the number of tokens just before the cursor that
    the hits contain in the same order, without a gap.
    """

    best: float
    second: float
    names: int
    overlap: float
    match: int


def evidence(cursor: Cursor, hits: Sequence[Hit]) -> Evidence:
    """Return the evidence that `hits` (best first) give at `cursor`."""
    best, second = sorted([*(hit.score for hit in hits), 0.0, 0.0], reverse=True)[:2]
    defined = {symbol for hit in hits[:NAME_HITS] for symbol in hit.chunk.symbols}
    names = len(defined & words(last_lines(cursor.prefix, NAME_LINES)))
    before = tokenize(cursor.prefix[-OVERLAP_CHARACTERS:])
    found = tokenize("\n".join(hit.chunk.text for hit in hits)[:OVERLAP_CHARACTERS])
    return Evidence(best, second, names, overlap(before, found), longest_match(before, found))


def overlap(before: list[str], found: list[str]) -> float:
    """Return the share of the last trigrams of `before`, the tokens of L, that the tokens `found` contain."""
    wanted = ngrams(before[-OVERLAP_TOKENS:], 3).keys()
    return len(wanted & ngrams(found, 3).keys()) / len(wanted) if wanted else 0.0


def longest_match(before: list[str], found: list[str]) -> int:
    """Return the length of the longest end of `before`, at most `MAX_MATCH` tokens, that `found` contains."""
    longest = 0
    for end in range(1, len(found) + 1):
        length = 0
        while length < min(MAX_MATCH, len(before), end) and found[end - 1 - length] == before[-1 - length]:
            length += 1
        longest = max(longest, length)
    return longest
