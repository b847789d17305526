"""What retrieval says of itself."""

from __future__ import annotations

from indexer.model import Chunk, Cursor, Hit
from policy.gating.evidence import evidence


def hit(score: float, *symbols: str) -> Hit:
    return Hit(Chunk("/w", "a.py", 1, 2, "…", "function", symbols=symbols), score)


def names(prefix: str, *hits: Hit) -> int:
    return evidence(Cursor("/w/b.py", prefix, "", "python"), hits).names


def test_the_two_best_are_told_whatever_their_order() -> None:
    found = evidence(Cursor("/w/b.py", "x", "", "python"), [hit(0.2), hit(0.5), hit(0.4)])
    assert (found.best, found.second) == (0.5, 0.4)
    assert evidence(Cursor("/w/b.py", "x", "", "python"), []) == evidence(Cursor("", "", "", ""), ())
    assert evidence(Cursor("/w/b.py", "x", "", "python"), [hit(0.3)]).second == 0


def test_names_that_the_cursors_lines_use_and_the_first_hits_define() -> None:
    prefix = "far_away()\n\n\nprice = area_of(1, 2)\nround_up(price).of("
    assert names(prefix, hit(0.1, "area_of", "round_up", "area_of"), hit(0.1, "price_of")) == 2
    assert names(prefix, hit(0.1, "area"), hit(0.1, "far_away")) == 0
    assert names(prefix, hit(0.1), hit(0.1), hit(0.1), hit(0.9, "area_of")) == 0


def overlap(prefix: str, *texts: str) -> float:
    hits = [Hit(Chunk("/w", "a.py", 1, 2, text, "function"), 0.5) for text in texts]
    return evidence(Cursor("/w/b.py", prefix, "", "python"), hits).overlap


def test_what_stands_before_the_cursor_is_looked_for_in_what_was_found() -> None:
    begun = "    with open(path, encoding='utf-8') as file:\n        return json"
    assert overlap(begun, "x = 1", begun + ".load(file)") == 1
    assert overlap(begun, begun.replace("  ", "\t") + ".load(file)") == 1, "white space is not code"
    assert overlap(begun, begun.replace("file", "stream")) == 0.5, "one of eight words is in three of six trigrams"
    assert overlap(begun, "return json") == 0, "two words are a coincidence"
    assert overlap("import os\n" * 40 + begun, "import os\n" * 40) == 0, "only the last words count"
    assert overlap(begun, "#" * 2000, begun) == 0, "what no prompt has room for does not count"
    assert overlap("", begun) == overlap(begun) == 0
