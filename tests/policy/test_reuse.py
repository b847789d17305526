"""When a completion that was shown answers the next request as well."""

from __future__ import annotations

import pytest

from indexer.model import Cursor
from policy.completion.reuse import Reuse


def cursor(source: str) -> Cursor:
    prefix, suffix = source.split("‸")
    return Cursor("/w/a.py", prefix, suffix, "python")


def left_at(source: str, *, document: str = "a", key: object = None) -> str | None:
    """What is left at `‸` of `range(10):`, generated in `for x in ‸` with one line below."""
    reuse: Reuse[str] = Reuse()
    reuse.put("a", cursor("for x in ‸\nprint()\n"), None, "range(10):", "where it came from")
    found = reuse.find(document, cursor(source), key)
    return found[0] if found else None


@pytest.mark.parametrize(
    ("source", "left"),
    [
        ("for x in ‸\nprint()\n", "range(10):"),  # asked again
        ("for x in ra‸\nprint()\n", "nge(10):"),  # typed through
        ("for x in range(10)‸\nprint()\n", ":"),
        ("for x in range(10):‸\nprint()\n", None),  # nothing is left
        ("for x in re‸\nprint()\n", None),  # something else
        ("for x in‸\nprint()\n", None),  # deleted beyond it
        ("for y in ra‸\nprint()\n", None),  # another text before
        ("for x in ra‸\nprint(x)\n", None),  # another text behind
    ],
)
def test_what_is_left(source: str, left: str | None) -> None:
    assert left_at(source) == left


def test_other_documents_and_settings_have_their_own() -> None:
    assert left_at("for x in ra‸\nprint()\n", document="b") is None
    assert left_at("for x in ra‸\nprint()\n", key="always") is None


def test_a_place_where_there_was_nothing() -> None:
    reuse: Reuse[int] = Reuse()
    reuse.put("a", cursor("x = 1‸\n"), None, "", 1)
    assert reuse.find("a", cursor("x = 1‸\n"), None) == ("", 1)
    assert reuse.find("a", cursor("x = 12‸\n"), None) is None


def test_an_old_answer_is_none() -> None:
    now = 0.0
    reuse: Reuse[int] = Reuse(clock=lambda: now)
    reuse.put("a", cursor("‸\n"), None, "text", 1)
    now = 3600.0
    assert reuse.find("a", cursor("‸\n"), None) is None


def test_the_newest_counts_and_the_oldest_goes() -> None:
    reuse: Reuse[int] = Reuse(kept=2)
    for number, text in enumerate(("one", "two", "three")):
        reuse.put("a", cursor("x" * number + "‸\n"), None, text, number)
    assert reuse.find("a", cursor("‸\n"), None) is None
    assert reuse.find("a", cursor("x‸\n"), None) == ("two", 1)
    reuse.forget("a")
    assert reuse.find("a", cursor("x‸\n"), None) is None
