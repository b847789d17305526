"""Compare a completion with the truth: exact match, edit similarity, identifier F1.

The definitions are the paper's (section 5.1). For exact match and edit similarity, both texts are first normalized as
in RepoCoder: lines are stripped and blank lines are removed. So a wrong indentation does not lower a score, and the
figures can be compared with the published ones.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from rapidfuzz.distance import Levenshtein

from indexer.languages import language_of, parser_for

_WORD = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True, slots=True)
class Score:
    """`em` (exact match) is 0 or 1. `es` (edit similarity) and `f1` (of the identifiers) are in 0–100."""

    em: int
    es: float
    f1: float


def score(predicted: str, truth: str, path: str = "") -> Score:
    """Compare a prediction, after `cutting.cut`, with the truth. The ending of `path` selects the language."""
    left, right = canonical(predicted), canonical(truth)
    return Score(int(left == right), edit_similarity(left, right), identifier_f1(predicted, truth, path))


def canonical(text: str) -> str:
    """Return the stripped non-blank lines of `text` (RepoCoder's `compute_EM`, `compute_ES`)."""
    return "\n".join(line for line in map(str.strip, text.splitlines()) if line)


def edit_similarity(predicted: str, truth: str) -> float:
    """Return 100 × (1 − Levenshtein distance / length of the longer text). Two empty texts have 100.

    The distance is the number of inserted, deleted and substituted characters.
    """
    return 100.0 * Levenshtein.normalized_similarity(predicted, truth)


def identifier_f1(predicted: str, truth: str, path: str = "") -> float:
    """Return the F1 of the multisets of identifiers, in 0–100 (CrossCodeEval, section 3.3); 100 if both are empty."""
    mine, theirs = identifiers(predicted, path), identifiers(truth, path)
    if not mine and not theirs:
        return 100.0
    common = (mine & theirs).total()
    return 200.0 * common / (mine.total() + theirs.total())


@lru_cache(maxsize=4096)
def identifiers(text: str, path: str = "") -> Counter[str]:
    """Count the identifiers in `text`: the identifier leaves of its syntax tree.

    The text does not have to parse, because tree-sitter still finds the leaves. Words in strings and comments do not
    count. If the language has no grammar, all words in the text count.
    """
    language = language_of(path)
    parser = parser_for(language.id) if language else None
    if parser is None:
        return Counter(_WORD.findall(text))
    source = text.encode("utf-8", "replace")
    found: Counter[str] = Counter()
    stack = [parser.parse(source).root_node]
    while stack:
        node = stack.pop()
        if node.children:
            stack.extend(node.children)
        elif "identifier" in node.type or node.type in {"word", "name", "constant", "simple_identifier"}:
            found[source[node.start_byte : node.end_byte].decode("utf-8", "replace")] += 1
    return found
