r"""Words and their keys: the alphabet of every retriever.

A word is a `\w+` run, case-sensitive, as in the paper's Jaccard. Inside the index a word is a 64-bit key, so that
worker processes and saved indexes agree without sharing a vocabulary. Two of a million distinct words collide with a
probability of about 3e-8; that is what "exact" means here.
"""

from __future__ import annotations

import re
from collections import Counter
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_WORD = re.compile(r"\w+")
LONGEST_LINE = 2_000  # characters; no person reads further along a line, and a key must not wait for the words there
_KNOWN_LIMIT = 1 << 20
_known: dict[str, int] = {}


def words(text: str) -> frozenset[str]:
    """Return the set of words of a text."""
    return frozenset(_WORD.findall(text))


def word_counts(text: str) -> Counter[str]:
    """Return how often each word of a text stands in it."""
    return Counter(_WORD.findall(text))


def key(word: str) -> int:
    """Return a word's 64-bit key, the same in each process and on each machine."""
    known = _known.get(word)
    if known is None:
        if len(_known) >= _KNOWN_LIMIT:
            _known.clear()
        known = int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
        _known[word] = known
    return known


def keys(distinct: Iterable[str]) -> NDArray[np.uint64]:
    """Return the keys of distinct words in ascending order (so that equal sets give equal arrays)."""
    array = np.fromiter(map(key, distinct), dtype=np.uint64)
    array.sort()
    return array


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Return the Jaccard similarity of two sets; 0.0 for two empty ones."""
    common = len(left & right)
    return common / (len(left) + len(right) - common) if common else 0.0


def last_lines(text: str, count: int) -> str:
    """Return the last `count` lines of a text; a line still being written counts.

    Very long lines are cut at the far end: no more than `LONGEST_LINE` characters a line are returned.
    """
    return _lines(text, count, from_end=True)


def first_lines(text: str, count: int) -> str:
    """Return the first `count` lines of a text, cut as `last_lines` are."""
    return _lines(text, count, from_end=False)


def _lines(text: str, count: int, *, from_end: bool) -> str:
    """Walk to the border instead of splitting: the text may be a whole file and the caller is a keystroke."""
    reach = max(count, 0) * LONGEST_LINE
    text = text[max(0, len(text) - reach) :] if from_end else text[:reach]
    at = len(text) if from_end else -1
    for _ in range(count):
        at = text.rfind("\n", 0, at) if from_end else text.find("\n", at + 1)
        if at < 0:
            return text
    return text[at + 1 :] if from_end else text[:at]
