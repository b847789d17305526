"""Syntax trees of whole files: an incremental parse gives the same tree as a full parse, and few trees are kept."""

from __future__ import annotations

import threading
import time
import weakref

from hypothesis import given
from hypothesis import strategies as st

from indexer.languages import parser_for
from indexer.model import Cursor
from policy.completion.shape import Shaper
from policy.completion.shaping.files import ParsedFiles

SOURCE = "def f(a):\n    return [a, 'é']\n\n\nclass A:\n    x = (1, 2)\n" * 5
EDITS = st.tuples(st.integers(0, len(SOURCE)), st.integers(0, 9), st.text(alphabet="ab()[]{}'\":é\n ", max_size=9))


@given(st.lists(EDITS, max_size=6))
def test_a_changed_file_has_the_tree_of_its_text(edits: list[tuple[int, int, str]]) -> None:
    files, text, parser = ParsedFiles(), SOURCE, parser_for("python")
    assert parser is not None
    files.tree("a", "python", text.encode())
    for start, size, new in edits:
        text = text[:start] + new + text[start + size :]
        tree, expected = files.tree("a", "python", text.encode()), parser.parse(text.encode())
        assert str(tree.root_node) == str(expected.root_node)


def test_a_completion_keeps_the_file_for_the_next_one() -> None:
    files, text = ParsedFiles(), SOURCE * 20
    Shaper(Cursor("a", text, text, "python"), files=files, document="a").prepare()
    assert len(files) == 1
    tree = files.tree("a", "python", (text + text).encode())
    Shaper(Cursor("a", text, text, "python"), files=files, document="a").prepare()
    assert files.tree("a", "python", (text + text).encode()) is tree


def test_few_documents_are_kept() -> None:
    files = ParsedFiles(documents=2, size=100)
    for name in "abc":
        files.tree(name, "python", b"x = 1\n")
    assert len(files) == 2
    files.tree("d", "python", b"x = 1\n" * 50)  # the file is larger than the limit, but the tree in use is always kept
    assert len(files) == 1
    files.forget("d")
    assert len(files) == 0


def test_a_document_that_changes_its_language_is_parsed_from_scratch() -> None:
    files = ParsedFiles()
    files.tree("a", "python", b"x = 1\n")
    assert files.tree("a", "javascript", b"x = 1;\n").root_node.type == "program"


BROKEN = SOURCE * 20 + "def broken(:\n    pass\n"
HOLE = BROKEN.index("a, 'é'", 2000) + len("a, ")
CURSOR = Cursor("a", BROKEN[:HOLE], BROKEN[HOLE:], "python")
TEXTS = ("b, ", "b)", "c]", "[1, 2], ")


def test_a_file_that_is_parsed_in_a_thread_gives_the_same_texts() -> None:
    shown: dict[bool, list[str]] = {}
    for background in (False, True):
        files = ParsedFiles(background=background)
        shaper = Shaper(CURSOR, files=files, document="a")
        shaper.prepare()
        shown[background] = [shaper.finish(text, complete=True).text for text in TEXTS]
    assert shown[True] == shown[False]
    assert any(shown[True])


def test_later_work_on_a_document_cancels_work_that_has_not_begun() -> None:
    files, wait = ParsedFiles(background=True), threading.Event()
    running = files.start("a", wait.wait)
    while not running.running():
        time.sleep(0.001)
    first, other = files.start("b", lambda: 1), files.start("c", lambda: 2)
    last = files.start("b", lambda: 3)
    wait.set()
    assert first.cancelled()
    assert (running.result(), other.result(), last.result()) == (True, 2, 3)


def test_the_result_of_work_is_not_kept() -> None:
    class Result:
        """An object to which a weak reference can refer."""

    files = ParsedFiles(background=True)
    future = files.start("a", Result)
    kept = weakref.ref(future.result())
    del future
    files.start("other", int).result()  # when this is done, the thread has released the earlier work
    assert kept() is None


def test_a_completion_whose_parse_was_cancelled_parses_the_file_itself() -> None:
    expected = [Shaper(CURSOR).finish(text, complete=True).text for text in TEXTS]
    files, wait = ParsedFiles(background=True), threading.Event()
    files.start("other", wait.wait)
    shaper = Shaper(CURSOR, files=files, document="a")
    shaper.prepare()
    Shaper(CURSOR, files=files, document="a").prepare()
    assert [shaper.finish(text, complete=True).text for text in TEXTS] == expected
    wait.set()
