"""Weighted n-gram match, the lexical term of CodeBLEU (Ren et al. 2020, arXiv 2009.10297), which respects word order.

The score is the BLEU of a chunk against the lines before the cursor, with n from 1 to 4. Among single words, a keyword
of the language weighs five times as much as another word (1 and 0.2, as published). The Repoformer paper compared this
score with Jaccard similarity and found no gain. An inverted index cannot compare sequences, so the score ranks only the
candidates that Jaccard similarity finds first.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import cache

from indexer.languages import grammar_of

CANDIDATES = 100  # maximum number of chunks that Jaccard similarity selects for this score
_TOKEN = re.compile(r"\w+|[^\w\s]")


def tokenize(text: str) -> list[str]:
    """Split code into words and single punctuation characters."""
    return _TOKEN.findall(text)


@cache
def keywords(language_id: str) -> frozenset[str]:
    """Return a language's keywords: the alphabetic words that occur literally in its grammar."""
    grammar = grammar_of(language_id)
    if grammar is None:
        return frozenset()
    kinds = (grammar.node_kind_for_id(n) for n in range(grammar.node_kind_count) if not grammar.node_kind_is_named(n))
    return frozenset(kind for kind in kinds if kind and kind.isalpha())


def weighted_ngram_match(candidate: list[str], reference: list[str], language_id: str) -> float:
    """Return the weighted BLEU, in [0, 1], of a candidate's tokens against a reference's."""
    if not candidate or not reference:
        return 0.0
    total = 0.0
    heavy = keywords(language_id)
    for n in range(1, 5):
        have, want = ngrams(candidate, n), ngrams(reference, n)
        weight = {gram: 1.0 if n > 1 or gram[0] in heavy else 0.2 for gram in have}
        shared = sum(min(count, want[gram]) * weight[gram] for gram, count in have.items())
        possible = sum(count * weight[gram] for gram, count in have.items())
        total += math.log((shared + 0.1) / (possible + 0.1)) / 4  # smoothed: a short chunk may share no 4-gram
    brevity = min(0.0, 1.0 - len(reference) / len(candidate))
    return math.exp(total + brevity)


def ngrams(tokens: list[str], n: int) -> Counter[tuple[str, ...]]:
    """Count each run of `n` tokens."""
    return Counter(zip(*(tokens[start:] for start in range(n)), strict=False))
