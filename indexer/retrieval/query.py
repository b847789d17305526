"""The query for a search: the words around the cursor, and the weight of each.

A word weighs less the further its line is from the cursor, on both sides: the weight halves every `HALF_LINES` lines.
The line that the user is writing says most about what comes next. If code elsewhere matches both the lines before the
cursor and the lines after it, the code between those matches often belongs at the cursor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from indexer.words import first_lines, key, keys, last_lines, words

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.model import Cursor

_WORD = re.compile(r"\w+")
HALF_LINES = 3.0  # the distance in lines at which a word's weight is half
LINES_AFTER = 8


@dataclass(frozen=True)
class Query:
    """The lines before a cursor (`lines`), and the weight of each word around it (`weights`, in (0, 1])."""

    lines: str
    weights: Mapping[str, float]
    language: str = ""

    @classmethod
    def at(cls, cursor: Cursor, lines: int) -> Query:
        """Make the query for a cursor, from `lines` lines before it and a few lines after it."""
        before = last_lines(cursor.prefix, lines)
        after = first_lines(cursor.suffix.lstrip("\n"), LINES_AFTER)
        weights: dict[str, float] = {}
        for side in (reversed(before.split("\n")), after.split("\n")):
            for distance, line in enumerate(side):
                for word in _WORD.findall(line):
                    weights[word] = max(weights.get(word, 0.0), 0.5 ** (distance / HALF_LINES))
        return cls(before, weights, cursor.language)

    @cached_property
    def line_keys(self) -> NDArray[np.uint64]:
        """Keys of the distinct words in the lines before the cursor."""
        return keys(words(self.lines))

    @cached_property
    def weighted_keys(self) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
        """Keys of the words around the cursor, and their weights."""
        pairs = sorted((key(word), weight) for word, weight in self.weights.items())
        return np.array([at for at, _ in pairs], np.uint64), np.array([weight for _, weight in pairs], np.float64)
