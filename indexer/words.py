r"""Words and their keys, which all retrievers use.

A word is a sequence of `\w` characters, case-sensitive, as in the paper's Jaccard similarity. In the index, a word is a
64-bit hash, so that worker processes and saved indexes agree without a shared vocabulary. Two of a million distinct
words have the same hash with a probability of about 3e-8, so "exact" results are exact up to that probability.
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
MAX_LINE_LENGTH = 2_000  # characters; limits the text that a search reads at each keystroke if lines are very long
_KNOWN_LIMIT = 1 << 20  # words in the cache of keys
_known: dict[str, int] = {}


def words(text: str) -> frozenset[str]:
    """Return the set of words of a text."""
    return frozenset(_WORD.findall(text))


def word_counts(text: str) -> Counter[str]:
    """Return how often each word occurs in a text."""
    return Counter(_WORD.findall(text))


def key(word: str) -> int:
    """Return a word's 64-bit key, which is the same in each process and on each machine."""
    known = _known.get(word)
    if known is None:
        if len(_known) >= _KNOWN_LIMIT:
            _known.clear()
        known = int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
        _known[word] = known
    return known


def keys(distinct: Iterable[str]) -> NDArray[np.uint64]:
    """Return the keys of distinct words in ascending order, so that equal sets give equal arrays."""
    array = np.fromiter(map(key, distinct), dtype=np.uint64)
    array.sort()
    return array


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Return the Jaccard similarity of two sets, or 0.0 for two empty sets."""
    common = len(left & right)
    return common / (len(left) + len(right) - common) if common else 0.0


def last_lines(text: str, count: int) -> str:
    """Return the last `count` lines of a text. The text after the last line break counts as a line.

    The result has at most `count` times `MAX_LINE_LENGTH` characters.
    """
    return _lines(text, count, from_end=True)


def first_lines(text: str, count: int) -> str:
    """Return the first `count` lines of a text, at most `count` times `MAX_LINE_LENGTH` characters."""
    return _lines(text, count, from_end=False)


def _lines(text: str, count: int, *, from_end: bool) -> str:
    """Return `count` lines from one end of a text.

    The function searches for line breaks. Splitting the text, which may be a whole file, would cost more at each
    keystroke.
    """
    reach = max(count, 0) * MAX_LINE_LENGTH
    text = text[max(0, len(text) - reach) :] if from_end else text[:reach]
    at = len(text) if from_end else -1
    for _ in range(count):
        at = text.rfind("\n", 0, at) if from_end else text.find("\n", at + 1)
        if at < 0:
            return text
    return text[at + 1 :] if from_end else text[:at]
