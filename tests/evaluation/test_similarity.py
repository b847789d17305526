"""Scores of pairs of texts, compared with a textbook algorithm on random pairs, and with values computed by hand."""

from __future__ import annotations

import random

import pytest

from policy.evaluation.similarity import canonical, edit_similarity, identifier_f1, score

PAIRS = 10_000
ALPHABETS = ("ab", "abc \n", "self.value_(x)=[]: ", "äöπ→😀x", "0123456789")


def random_pairs(count: int, longest: int) -> list[tuple[str, str]]:
    """Return pairs of texts with fewer than `longest` characters.

    In half of the pairs, the texts are unrelated. In the others, one text is a mutation of the other.
    """
    rng = random.Random(7)
    pairs = []
    for number in range(count):
        alphabet = rng.choice(ALPHABETS)
        left = "".join(rng.choices(alphabet, k=rng.randrange(longest)))
        if number % 2:
            right = "".join(rng.choices(alphabet, k=rng.randrange(longest)))
        else:
            kept = [character for character in left if rng.random() > 0.2]
            for _ in range(rng.randrange(4)):
                kept.insert(rng.randrange(len(kept) + 1), rng.choice(alphabet))
            right = "".join(kept)
        pairs.append((left, right))
    return pairs


def brute_force(left: str, right: str) -> int:
    """Return the edit distance, computed row by row with the table of Wagner and Fischer (1974)."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        above, row = row, [i]
        for j, b in enumerate(right, start=1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b)))
    return row[-1]


def similarity_by_the_table(left: str, right: str) -> float:
    longest = max(len(left), len(right))
    return 100 * (1 - brute_force(left, right) / longest) if longest else 100


def test_edit_similarity_equals_the_textbook_recursion() -> None:
    for left, right in random_pairs(PAIRS, 24):
        assert edit_similarity(left, right) == similarity_by_the_table(left, right), (left, right)


def test_edit_similarity_of_long_texts_is_the_textbook_s() -> None:
    """Fast implementations use another algorithm for texts of more than 64 characters.

    For shorter texts, they store one bit per character in a machine word.
    """
    for left, right in random_pairs(PAIRS // 50, 160):
        assert edit_similarity(left, right) == similarity_by_the_table(left, right), (left, right)


def test_scores_equal_an_independent_implementation() -> None:
    for left, right in random_pairs(PAIRS // 5, 60):
        found = score(left, right)
        a, b = ([line.strip() for line in text.splitlines() if line.strip()] for text in (left, right))
        assert found.em == (a == b)
        assert found.es == similarity_by_the_table("\n".join(a), "\n".join(b))


@pytest.mark.parametrize(
    ("predicted", "truth", "similarity"),
    [("", "", 100), ("a", "", 0), ("", "a", 0), ("same", "same", 100), ("abcd", "abcx", 75), ("ab", "abcd", 50)],
)
def test_edit_similarity(predicted: str, truth: str, similarity: float) -> None:
    assert edit_similarity(predicted, truth) == similarity


def test_indentation_and_blank_lines_do_not_count() -> None:
    assert canonical("  a = 1\r\n\n\tb = 2  \n") == "a = 1\nb = 2"
    assert score("    return x\n\n", "return x").em == 1


@pytest.mark.parametrize(
    ("predicted", "truth", "path", "f1"),
    [
        ("total += price", "total += price", "a.py", 100),
        ("total += cost", "total += price", "a.py", 50),
        ("x = f(a, a)", "x = f(a)", "a.py", 200 * 3 / 7),
        ('name = "total price"', "name = 1", "a.py", 100),  # words in strings are not identifiers
        ("1 + 2", "3", "a.py", 100),
        ("1 + 2", "x", "a.py", 0),
        ("const x = area(w)", "const y = area(h)", "a.ts", 200 / 6),
        ("alpha beta", "alpha gamma", "notes.unknown", 50),
    ],
)
def test_f1_of_identifiers(predicted: str, truth: str, path: str, f1: float) -> None:
    assert identifier_f1(predicted, truth, path) == pytest.approx(f1)
