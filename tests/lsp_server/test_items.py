"""The range and the text of a completion item, in all three position encodings."""

from __future__ import annotations

import pytest
from lsprotocol import types

from indexer.model import Cursor
from lsp_server.features.completion import entry
from lsp_server.items import item, selection_of, sides
from lsp_server.session import Record
from lsp_server.text import Document, Encoding, Place, units
from policy.completion.request import Completion, Request

ENCODINGS: tuple[Encoding, ...] = ("utf-8", "utf-16", "utf-32")


def at_cursor(marked: str) -> tuple[Document, Place]:
    """Return the document with the text `marked`, without its `‸`, and the place of the `‸`."""
    before, after = marked.split("‸")
    lines = before.split("\n")
    return Document.of("file:///a.py", before + after), Place(len(lines) - 1, len(lines[-1]))


def accept(document: Document, made: types.InlineCompletionItem, encoding: Encoding) -> str:
    """Return the text of the document after an editor has accepted the item."""
    assert made.range is not None
    start = document.locate((made.range.start.line, made.range.start.character), encoding)
    end = document.locate((made.range.end.line, made.range.end.character), encoding)
    left, right = document.split_at(start)[0], document.split_at(end)[1]
    return f"{left}{made.insert_text}{right}"


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("marked", "text", "expect"),
    [
        ("x = ar‸", "ea(2)", "x = area(2)"),
        ("a\n    return ‸\nb", "w * h", "a\n    return w * h\nb"),
        ("print('😀é', ‸)", "x", "print('😀é', x)"),
        ("😀 = e\u0301‸", " + 1", "😀 = e\u0301 + 1"),
        ("def f():\n\t‸", "return 1", "def f():\n\treturn 1"),
        ("if x:‸\n", "\n    y()", "if x:\n    y()\n"),
        ("‸", "import os", "import os"),
    ],
)
def test_accepting_an_item_inserts_the_text_at_the_cursor(
    encoding: Encoding, marked: str, text: str, expect: str
) -> None:
    document, place = at_cursor(marked)
    made = item(document, place, None, text, encoding)
    assert accept(document, made, encoding) == expect
    assert made.range is not None
    assert made.range.start.line == made.range.end.line == place.line


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_at_the_end_of_a_line_the_range_reaches_back_to_its_start(encoding: Encoding) -> None:
    document, place = at_cursor("a = 1\n'😀' + ‸\nb")
    made = item(document, place, None, "c", encoding)
    assert made.insert_text == "'😀' + c"
    assert made.range is not None
    assert (made.range.start.character, made.range.end.character) == (0, units("'😀' + ", encoding))
    assert made.filter_text is None


def test_in_mid_line_the_range_is_empty() -> None:
    document, place = at_cursor("f(‸)")
    made = item(document, place, None, "x", "utf-16")
    assert made.insert_text == "x"
    assert made.range == types.Range(types.Position(0, 2), types.Position(0, 2))


def selected(start: int, end: int, text: str, line: int = 0) -> types.SelectedCompletionInfo:
    return types.SelectedCompletionInfo(types.Range(types.Position(line, start), types.Position(line, end)), text)


@pytest.mark.parametrize(
    ("marked", "info", "left", "insert", "filter_text"),
    [
        ("x.pri‸", selected(2, 5, "print"), "x.print", "print(1)", None),
        ("x.prt‸", selected(2, 5, "print"), "x.print", "print(1)", "prt"),  # `prt` is a fuzzy match of `print`
        ("x.‸", selected(2, 2, "print"), "x.print", "print(1)", None),
    ],
)
def test_a_selected_entry_is_extended_over_its_own_range(
    marked: str, info: types.SelectedCompletionInfo, left: str, insert: str, filter_text: str | None
) -> None:
    document, place = at_cursor(marked)
    selection = selection_of(document, place, info, "utf-16")
    assert selection is not None
    assert sides(document, selection) == (left, "")
    made = item(document, place, selection, "(1)", "utf-16")
    assert (made.insert_text, made.filter_text, made.range) == (insert, filter_text, info.range)
    assert accept(document, made, "utf-16") == "x.print(1)"


@pytest.mark.parametrize("info", [None, selected(0, 1, "other"), selected(0, 3, "x", line=1)])
def test_an_entry_that_is_not_at_the_cursor_is_left_alone(info: types.SelectedCompletionInfo | None) -> None:
    document, place = at_cursor("x.pri‸\nabc")
    assert selection_of(document, place, info, "utf-16") is None


@pytest.mark.parametrize("length", [1_000, 20_000, 10_000_000])
@pytest.mark.parametrize("letter", ["a", "é", " ", "a.b(c), "])
def test_an_item_at_the_end_of_a_very_long_line_does_not_repeat_it(letter: str, length: int) -> None:
    document, place = at_cursor(letter * (length // len(letter)) + "‸")
    made = item(document, place, None, "x", "utf-16")
    assert made.range is not None
    assert made.insert_text == "x" and made.range.start == made.range.end
    assert accept(document, made, "utf-16") == document.text + "x"


@pytest.mark.parametrize("length", [1_000, 20_000, 10_000_000])
@pytest.mark.parametrize("letter", ["a", "é", " ", "a.b(c), "])
def test_an_entry_at_the_end_of_a_very_long_line_is_short(letter: str, length: int) -> None:
    document, place = at_cursor(letter * (length // len(letter)) + "nam‸")
    request = Request(Cursor("/a.py", *document.split_at(place), "python"), document.uri)
    record = Record(1, document.uri, (0, 0), request, Completion("e_of"))
    made = entry(document, place, record, "utf-16")
    shown = f"{made.label}{made.filter_text}{made.text_edit}{made.documentation}"
    assert len(shown) < 2_000 and made.text_edit is not None and made.text_edit.new_text.endswith("e_of")


@pytest.mark.parametrize(("before", "word"), [("", ""), ("a.nam", "nam"), ("x = ", ""), ("é_1", "é_1"), ("(", "")])
def test_an_entry_replaces_the_word_at_the_cursor(before: str, word: str) -> None:
    document, place = at_cursor(f"{before}‸")
    request = Request(Cursor("/a.py", before, "", "python"), document.uri)
    made = entry(document, place, Record(1, document.uri, (0, 0), request, Completion("Z")), "utf-16")
    assert isinstance(made.text_edit, types.TextEdit)
    assert made.text_edit.new_text == f"{word}Z"
    assert made.text_edit.range.start.character == len(before) - len(word)
