"""What retrieval says of itself."""

from __future__ import annotations

from indexer.model import Chunk, Cursor, Hit
from policy.evidence import evidence


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
