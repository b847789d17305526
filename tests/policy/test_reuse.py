"""A request is answered from an earlier completion, if the user typed its beginning or requests it again."""

from __future__ import annotations

import pytest

from indexer.model import Cursor
from policy.completion.reuse import Reuse


def cursor(source: str) -> Cursor:
    prefix, suffix = source.split("‸")
    return Cursor("/w/a.py", prefix, suffix, "python")


def left_at(source: str, *, document: str = "a", key: object = None) -> str | None:
    """Return the text that is reused at the cursor `‸` in `source`.

    The earlier completion is `range(10):`, generated after `for x in ` with the line `print()` below.
    """
    reuse: Reuse[str] = Reuse()
    reuse.put("a", cursor("for x in ‸\nprint()\n"), None, "range(10):", "where it came from")
    found = reuse.find(document, cursor(source), key)
    return found.text if found else None


@pytest.mark.parametrize(
    ("source", "left"),
    [
        ("for x in ‸\nprint()\n", "range(10):"),  # the cursor is at the same place
        ("for x in ra‸\nprint()\n", "nge(10):"),  # the user typed the beginning of the text
        ("for x in range(10)‸\nprint()\n", ":"),
        ("for x in range(10):‸\nprint()\n", None),  # the user typed the whole text
        ("for x in re‸\nprint()\n", None),  # the user typed another text
        ("for x in‸\nprint()\n", None),  # the user deleted text before the completion
        ("for y in ra‸\nprint()\n", None),  # the text before the completion differs
        ("for x in ra‸\nprint(x)\n", None),  # the text after the cursor differs
    ],
)
def test_the_rest_of_a_text_is_reused(source: str, left: str | None) -> None:
    assert left_at(source) == left


@pytest.mark.parametrize(
    ("text", "source", "left"),
    [
        ("f(a, b)", "x = f(‸)\n", "a, b"),
        ("f(a, b)", "x = f(a‸)\n", ", b"),
        ("f(a, b)", "x = f(a, b)‸\n", None),  # the user typed the whole text
        ("f(g(a), b) + c", "x = f(‸)\n", "g(a), b"),
        ("f(g(a), b) + c", "x = f(g(‸))\n", "a"),
        ("f(g(a), b) + c", "x = f(g(a)‸)\n", ", b"),
        ("f(g(a), b) + c", "x = f(g(a), b)‸\n", " + c"),
        ('"a)" + b', 'x = "‸"\n', "a)"),
        ('f(")", [b])', 'x = f("‸")\n', ")"),
        ('f(")", [b])', 'x = f(")", [‸])\n', "b"),
        ("f(\n    a,\n)", "x = f(\n    ‸)\n", "a,\n"),
        ("f()", "x = f(‸)\n", None),  # nothing is left to show
        ("f(a)", "x = f(‸]\n", None),  # the text after the cursor differs
        ("f(a)", "x = f(‸))\n", None),
        ("don't", "x = don't‸\n", None),
    ],
)
def test_the_editor_closes_what_the_user_opens(text: str, source: str, left: str | None) -> None:
    reuse: Reuse[int] = Reuse()
    reuse.put("a", cursor("x = ‸\n"), None, text, 1)
    found = reuse.find("a", cursor(source), None)
    assert (found and found.text) == left


def test_documents_and_settings_are_separate() -> None:
    assert left_at("for x in ra‸\nprint()\n", document="b") is None
    assert left_at("for x in ra‸\nprint()\n", key="always") is None


def test_an_empty_completion_is_reused() -> None:
    reuse: Reuse[int] = Reuse()
    reuse.put("a", cursor("x = 1‸\n"), None, "", 1)
    assert reuse.find("a", cursor("x = 1‸\n"), None) == ("", 1, 0)
    assert reuse.find("a", cursor("x = 12‸\n"), None) is None


def test_an_old_completion_is_not_reused() -> None:
    now = 0.0
    reuse: Reuse[int] = Reuse(clock=lambda: now)
    reuse.put("a", cursor("‸\n"), None, "text", 1)
    now = 3600.0
    assert reuse.find("a", cursor("‸\n"), None) is None


def test_the_newest_is_used_and_the_oldest_is_deleted() -> None:
    reuse: Reuse[int] = Reuse(kept=2)
    for number, text in enumerate(("one", "two", "three")):
        reuse.put("a", cursor("x" * number + "‸\n"), None, text, number)
    assert reuse.find("a", cursor("‸\n"), None) is None
    assert reuse.find("a", cursor("x‸\n"), None) == ("two", 1, 0)
    reuse.forget("a")
    assert reuse.find("a", cursor("x‸\n"), None) is None
