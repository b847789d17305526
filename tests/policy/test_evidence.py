"""The evidence, which is the numbers that a gate takes from the hits of a search."""

from __future__ import annotations

from indexer.model import Chunk, Cursor, Hit
from policy.gating.evidence import MAX_MATCH, evidence


def hit(score: float, *symbols: str) -> Hit:
    return Hit(Chunk("/w", "a.py", 1, 2, "…", "function", symbols=symbols), score)


def names(prefix: str, *hits: Hit) -> int:
    return evidence(Cursor("/w/b.py", prefix, "", "python"), hits).names


def test_the_two_best_scores_count_in_any_order() -> None:
    found = evidence(Cursor("/w/b.py", "x", "", "python"), [hit(0.2), hit(0.5), hit(0.4)])
    assert (found.best, found.second) == (0.5, 0.4)
    assert evidence(Cursor("/w/b.py", "x", "", "python"), []) == evidence(Cursor("", "", "", ""), ())
    assert evidence(Cursor("/w/b.py", "x", "", "python"), [hit(0.3)]).second == 0


def test_names_in_the_cursors_lines_that_hits_define_count() -> None:
    prefix = "far_away()\n\n\nprice = area_of(1, 2)\nround_up(price).of("
    assert names(prefix, hit(0.1, "area_of", "round_up", "area_of"), hit(0.1, "price_of")) == 2
    assert names(prefix, hit(0.1, "area"), hit(0.1, "far_away")) == 0
    assert names(prefix, hit(0.1), hit(0.1), hit(0.1), hit(0.9, "area_of")) == 0


def overlap(prefix: str, *texts: str) -> float:
    hits = [Hit(Chunk("/w", "a.py", 1, 2, text, "function"), 0.5) for text in texts]
    return evidence(Cursor("/w/b.py", prefix, "", "python"), hits).overlap


def test_trigrams_before_the_cursor_are_searched_in_the_hits() -> None:
    before = "    with open(path, encoding='utf-8') as file:\n        return json"
    assert overlap(before, "x = 1", before + ".load(file)") == 1
    assert overlap(before, before.replace("  ", "\t") + ".load(file)") == 1, "white space counts"
    # One of eight words differs. It is in three of the six sequences of three words.
    assert overlap(before, before.replace("file", "stream")) == 0.5
    assert overlap(before, "return json") == 0, "a sequence of only two words counts"
    assert overlap("import os\n" * 40 + before, "import os\n" * 40) == 0, "words far before the cursor count"
    assert overlap(before, "#" * 2000, before) == 0, "a chunk that does not fit into a prompt counts"
    assert overlap("", before) == overlap(before) == 0


def match(prefix: str, *texts: str) -> int:
    hits = [Hit(Chunk("/w", "a.py", 1, 2, text, "function"), 0.5) for text in texts]
    return evidence(Cursor("/w/b.py", prefix, "", "python"), hits).match


def test_the_longest_text_before_the_cursor_that_the_hits_contain_is_measured_in_tokens() -> None:
    assert match("total = price.of", "x", "return price.of(order)") == 3
    assert match("total = price.of", "total = price.to", "of") == 1, "text that does not end at the cursor counts"
    assert match("total = price .of", "total=price.of(") == 5, "white space counts"
    assert match("total", "") == match("", "total") == match("total") == 0
    assert match("x = 1\n" * 90, "x = 1\n" * 90) == MAX_MATCH
    assert match("total = 1", "#" * 2000, "total = 1") == 0, "a chunk that does not fit into a prompt counts"
