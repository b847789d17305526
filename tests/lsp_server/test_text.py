"""Documents and positions, compared with a slow reference implementation that scans a string unit by unit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsp_server.text import Change, Document, Encoding, Place, Position, units

ENCODINGS: tuple[Encoding, ...] = ("utf-8", "utf-16", "utf-32")
CODEC = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2), "utf-32": ("utf-32-le", 4)}

# Line ends, characters that Python's `str.splitlines` treats as line ends and LSP does not, characters of one to four
# bytes in UTF-8, a combining accent, and an emoji that is joined from several.
LETTERS = ["a", "{", "\t", "\n", "\r", "\r\n", "\f", "\v", "\x85", "\u2028", "\u2029", "\x1c"]
LETTERS += ["é", "e\u0301", "ß", "漢", "\ufeff", "😀", "👩\u200d👩\u200d👧", "𝒳"]
texts = st.lists(st.sampled_from(LETTERS), max_size=25).map("".join)
positions = st.tuples(st.integers(0, 8), st.integers(0, 30))
changes = st.builds(Change, texts, positions, positions) | st.builds(Change, texts)


def line_starts(text: str) -> list[int]:
    """Return the offset at which each line starts, by LSP's definition of a line."""
    starts = [0]
    for index, letter in enumerate(text):
        if letter == "\n" or (letter == "\r" and text[index + 1 : index + 2] != "\n"):
            starts.append(index + 1)
    return starts


def reference_offset(text: str, position: Position, encoding: Encoding) -> int:
    """Return the offset of a position.

    It is the last offset in the line that is at most `character` units of the encoding after the start of the line.
    """
    starts = line_starts(text)
    line, character = position
    if line >= len(starts):
        return len(text)
    offset = starts[line]
    codec, size = CODEC[encoding]
    while offset < len(text) and text[offset] not in "\r\n":
        if len(text[starts[line] : offset + 1].encode(codec)) // size > character:
            break
        offset += 1
    return offset


def reference_apply(text: str, change: Change, encoding: Encoding) -> str:
    if change.start is None or change.end is None:
        return change.text
    ends = sorted(reference_offset(text, position, encoding) for position in (change.start, change.end))
    return text[: ends[0]] + change.text + text[ends[1] :]


def offset_of(document: Document, place: Place) -> int:
    return len("".join(document.lines[: place.line])) + place.column


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(text=texts, edits=st.lists(changes, max_size=6))
def test_edits_give_the_text_the_client_has(encoding: Encoding, text: str, edits: list[Change]) -> None:
    document = Document.of("file:///a", text).apply(edits, 7, encoding)
    for edit in edits:
        text = reference_apply(text, edit, encoding)
    assert "".join(document.lines) == text
    assert document.lines == Document.of("file:///a", text).lines, "an edited document differs from a new one"
    assert document.version == 7


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(text=texts, position=positions)
def test_a_position_becomes_the_offset_the_client_means(encoding: Encoding, text: str, position: Position) -> None:
    document = Document.of("file:///a", text)
    place = document.locate(position, encoding)
    assert offset_of(document, place) == reference_offset(text, position, encoding)
    assert bool(place.note) == (position[0] >= len(line_starts(text)))
    assert document.locate(document.position(place, encoding), encoding) == Place(place.line, place.column)


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(text=texts)
def test_units_are_those_of_the_codec(encoding: Encoding, text: str) -> None:
    codec, size = CODEC[encoding]
    assert units(text, encoding) == len(text.encode(codec)) // size


@given(text=texts, position=positions)
def test_the_two_sides_of_a_place_make_the_text(text: str, position: Position) -> None:
    document = Document.of("file:///a", text)
    place = document.locate(position, "utf-16")
    left, right = document.split_at(place)
    assert left + right == document.text == text.replace("\r\n", "\n").replace("\r", "\n")
    before, after = document.around(place)
    assert left.endswith(before) and right.startswith(after)
    assert "\n" not in before + after


@pytest.mark.parametrize(
    ("text", "position", "encoding", "expect"),
    [
        ("x = '😀'‸", (0, 8), "utf-16", (0, 7)),
        ("x = '😀'‸", (0, 10), "utf-8", (0, 7)),
        ("x = '😀'‸", (0, 7), "utf-32", (0, 7)),
        ("'😀'‸", (0, 2), "utf-16", (0, 1)),  # in the middle of a surrogate pair: before the character
        ("e\u0301x", (0, 2), "utf-16", (0, 2)),  # a combining accent has its own column
        ("a\fb\u2028c\nd", (1, 1), "utf-16", (1, 1)),  # neither \f nor \u2028 ends a line
        ("ab\n", (0, 99), "utf-16", (0, 2)),  # past the end of the line: the end of the line
        ("ab\r\ncd", (0, 3), "utf-16", (0, 2)),  # between \r and \n: before \r
        ("ab\n", (1, 0), "utf-16", (1, 0)),  # on the empty line after the last \n
    ],
)
def test_places(text: str, position: Position, encoding: Encoding, expect: tuple[int, int]) -> None:
    place = Document.of("file:///a", text.replace("‸", "")).locate(position, encoding)
    assert (place.line, place.column, place.note) == (*expect, "")


@pytest.mark.parametrize("position", [(5, 0), (-1, 0), (0, -1)])
def test_a_position_outside_is_clamped_and_says_so(position: Position) -> None:
    place = Document.of("file:///a", "one\ntwo").locate(position, "utf-16")
    assert place.note
    assert (place.line, place.column) in {(0, 0), (1, 3)}


def test_half_a_surrogate_pair_is_replaced_and_positions_hold() -> None:
    document = Document.of("file:///a", "a\ud83db")
    assert document.text == "a\ufffdb"
    assert [document.locate((0, 2), encoding).column for encoding in ("utf-16", "utf-32")] == [2, 2]
    assert document.apply([Change("\ude00", (0, 0), (0, 0))], 1, "utf-16").text == "\ufffda\ufffdb"


# The length of a line in characters. An operation in quadratic time would exceed the time limit of a test.
HUGE = 10_000_000


@pytest.mark.parametrize("text", ["a", "é", "😀", "word ", "\r", "eyJ-"])
def test_a_huge_line_is_opened_edited_and_looked_at_in_linear_time(text: str) -> None:
    document = Document.of("file:///a", text * (HUGE // len(text)))
    last = len(document.lines) - 1
    end = document.position(Place(last, len(document.lines[last])), "utf-16")
    edited = document.apply([Change("x", end, end)], 1, "utf-16")
    assert edited.text == document.text + "x"
    assert edited.locate(end, "utf-16") == Place(last, len(document.lines[last]))


def test_a_change_of_every_line_costs_no_copy_of_the_lines_each() -> None:
    count = 300_000
    document = Document.of("file:///a", "x = 1\n" * count)
    edited = document.apply([Change("y", (line, 0), (line, 1)) for line in range(count)], 1, "utf-16")
    assert edited.text == "y = 1\n" * count


@given(text=st.text(st.characters(exclude_categories=()), max_size=30))
def test_half_a_pair_anywhere_leaves_text_that_can_be_encoded(text: str) -> None:
    assert len(Document.of("file:///a", text).text.encode("utf-16-le")) // 2 == units(
        Document.of("file:///a", text).text, "utf-16"
    )
