"""Pinned chunks stay in the prompt although the ranking changes, and decisions hold until the end of their line."""

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
    """Return the chosen chunks in order. Each chunk has a name of one letter.

    The chunks `stood` are pinned. Then the cursor moves down by `moved` lines, and a search finds the chunks `found`.
    """
    pinned = PinnedChunks()
    pinned.pin(DOCUMENT, at(50), hits(stood))
    return "".join(hit.chunk.path[0] for hit in pinned.choose(DOCUMENT, at(50 + moved), hits(found)))


def test_the_first_choice_is_the_ranking() -> None:
    assert PinnedChunks().choose(DOCUMENT, at(0), hits("abc")) == hits("abc")
    assert offered("", "abc") == "abc"


def test_changes_below_the_best_hit_do_not_matter() -> None:
    assert offered("abc", "abc") == "abc"
    assert offered("abc", "abdce") == "abc"
    assert offered("abc", "cba") == "abc"


def test_a_new_best_chunk_follows_the_pinned_ones() -> None:
    assert offered("abc", "dabc") == "abdc"
    assert offered("abc", "adb") == "abd", "the pinned chunk c, which the search no longer finds, is kept"


def test_another_region_gets_new_chunks() -> None:
    assert offered("abc", "cba", moved=REGION) == "abc"
    assert offered("abc", "cba", moved=REGION + 1) == "cba"


def test_an_edited_chunk_is_another_chunk() -> None:
    pinned = PinnedChunks()
    pinned.pin(DOCUMENT, at(1), hits("ab"))
    edited = (Hit(Chunk("/w", "a.py", 1, 1, "a = 2\n", "block"), 0.5), *hits("b"))
    assert pinned.choose(DOCUMENT, at(1), edited) == (*hits("b"), edited[0])


def test_forgotten_chunks_are_not_pinned() -> None:
    pinned = PinnedChunks()
    pinned.pin(DOCUMENT, at(1), hits("ab"))
    pinned.forget(DOCUMENT)
    assert pinned.choose(DOCUMENT, at(1), hits("ba")) == hits("ba")


def test_without_hits_nothing_is_pinned() -> None:
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
    decisions, made = LineDecisions(), Decision(0.3, 0.4, False, "token")
    decisions.put(DOCUMENT, typed("", "x = ", ";"), "", Decision(0.7, 0.4, True, "token"))
    decisions.put(DOCUMENT, typed("", "x = ", ";"), "", made)
    for line, holds in (
        ("x = a", True),
        ("x = a.", False),
        ("x = f(", False),
        ("x = a->b", False),
        ("x = a + b", True),
    ):
        found = decisions.find(DOCUMENT, typed("", line, ";"), "")
        assert found == (Decision(0.3, 0.4, False, "token", held=True) if holds else None), line
    decisions.put(DOCUMENT, typed("", "x = a.b(", ";"), "", made)
    assert decisions.find(DOCUMENT, typed("", "x = a.b(c", ";"), ""), "a later decision does not hold"


def test_an_abstention_is_reconsidered_after_deleting_and_typing() -> None:
    decisions, made = LineDecisions(), Decision(0.3, 0.4, False, "token")
    decisions.put(DOCUMENT, typed("", "x = a.b"), "", made)
    assert decisions.find(DOCUMENT, typed("", "x = a"), ""), "an abstention must hold here"
    assert decisions.find(DOCUMENT, typed("", "x = f("), "") is None
