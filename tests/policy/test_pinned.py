"""Chunks that stay in the prompt although the ranking moves."""

from __future__ import annotations

from indexer.model import Chunk, Cursor, Hit
from policy.completion.pinned import REGION, LineDecisions, PinnedChunks
from policy.gating.decision import Decision

DOCUMENT = "file:///w/main.py"


def hits(names: str) -> tuple[Hit, ...]:
    return tuple(Hit(Chunk("/w", f"{name}.py", 1, 1, f"{name} = 1\n", "block"), 0.5) for name in names)


def at(line: int) -> Cursor:
    return Cursor("/w/main.py", "\n" * line, "", "python")


def offered(stood: str, found: str, *, moved: int = 0) -> str:
    """What is offered of `found` after `stood` stood in the prompt `moved` lines above, by the names of the files."""
    pinned = PinnedChunks()
    pinned.pin(DOCUMENT, at(50), hits(stood))
    return "".join(hit.chunk.path[0] for hit in pinned.choose(DOCUMENT, at(50 + moved), hits(found)))


def test_the_first_choice_is_the_ranking() -> None:
    assert PinnedChunks().choose(DOCUMENT, at(0), hits("abc")) == hits("abc")
    assert offered("", "abc") == "abc"


def test_what_moves_below_the_best_changes_nothing() -> None:
    assert offered("abc", "abc") == "abc"
    assert offered("abc", "abdce") == "abc"
    assert offered("abc", "cba") == "abc"


def test_a_new_best_chunk_comes_in_behind_those_that_stay() -> None:
    assert offered("abc", "dabc") == "abdc"
    assert offered("abc", "adb") == "abd", "one is not found any more"


def test_another_region_is_another_choice() -> None:
    assert offered("abc", "cba", moved=REGION) == "abc"
    assert offered("abc", "cba", moved=REGION + 1) == "cba"


def test_a_chunk_that_was_edited_is_another_chunk() -> None:
    pinned = PinnedChunks()
    pinned.pin(DOCUMENT, at(1), hits("ab"))
    edited = (Hit(Chunk("/w", "a.py", 1, 1, "a = 2\n", "block"), 0.5), *hits("b"))
    assert pinned.choose(DOCUMENT, at(1), edited) == (*hits("b"), edited[0])


def test_what_is_forgotten_is_not_pinned() -> None:
    pinned = PinnedChunks()
    pinned.pin(DOCUMENT, at(1), hits("ab"))
    pinned.forget(DOCUMENT)
    assert pinned.choose(DOCUMENT, at(1), hits("ba")) == hits("ba")


def test_where_nothing_is_found_nothing_is_pinned() -> None:
    pinned = PinnedChunks()
    pinned.pin(DOCUMENT, at(1), hits("ab"))
    assert pinned.choose(DOCUMENT, at(1), ()) == ()
    pinned.pin(DOCUMENT, at(1), ())
    assert pinned.at(DOCUMENT, at(1)) == ()


def typed(above: str, line: str, suffix: str = "\n") -> Cursor:
    return Cursor("/w/main.py", above + line, suffix, "python")


def test_a_decision_to_retrieve_holds_to_the_end_of_its_line() -> None:
    decisions, asked = LineDecisions(), Decision(0.7, 0.4, True, "hybrid")
    decisions.put(DOCUMENT, typed("import a\n", "x = "), "settings", asked)
    found = decisions.find(DOCUMENT, typed("import a\n", "x = a."), "settings")
    assert found == Decision(0.7, 0.4, True, "hybrid", held=True)
    for cursor, key in (
        (typed("import a\nx = a.b\n", ""), "settings"),
        (typed("import b\n", "x = "), "settings"),
        (typed("import a\n", "x = ", ")\n"), "settings"),
        (typed("import a\n", "x = "), "other settings"),
    ):
        assert decisions.find(DOCUMENT, cursor, key) is None
    decisions.forget(DOCUMENT)
    assert decisions.find(DOCUMENT, typed("import a\n", "x = "), "settings") is None


def test_an_abstention_holds_until_a_member_or_an_argument_begins() -> None:
    decisions, said = LineDecisions(), Decision(0.3, 0.4, False, "token")
    decisions.put(DOCUMENT, typed("", "x = ", ";"), "", Decision(0.7, 0.4, True, "token"))
    decisions.put(DOCUMENT, typed("", "x = ", ";"), "", said)
    for line, holds in (
        ("x = a", True),
        ("x = a.", False),
        ("x = f(", False),
        ("x = a->b", False),
        ("x = a + b", True),
    ):
        found = decisions.find(DOCUMENT, typed("", line, ";"), "")
        assert found == (Decision(0.3, 0.4, False, "token", held=True) if holds else None), line
    decisions.put(DOCUMENT, typed("", "x = a.b(", ";"), "", said)
    assert decisions.find(DOCUMENT, typed("", "x = a.b(c", ";"), ""), "it was asked for behind all of them"


def test_an_abstention_is_asked_for_again_where_a_line_was_deleted_into_and_typed_anew() -> None:
    decisions, said = LineDecisions(), Decision(0.3, 0.4, False, "token")
    decisions.put(DOCUMENT, typed("", "x = a.b"), "", said)
    assert decisions.find(DOCUMENT, typed("", "x = a"), ""), "nothing new has begun"
    assert decisions.find(DOCUMENT, typed("", "x = f("), "") is None
