"""A completion's text as an inline completion item: which range, which text.

Three editors were tried (VS Code, Neovim 0.12, Emacs with eglot). At the end of a line the range reaches from the
line's start to the cursor and the text begins with what is typed there: typing through the suggestion then works in
all of them. In mid-line the range is empty, because Neovim draws a longer one over the text behind the cursor. It is
empty at the end of a very long line, too, because the item would repeat the line. No
snippets: with a range, Neovim doubles the prefix. While a popup menu is open and an entry is selected, the item must
extend that entry over the entry's own range, or VS Code does not show it.
"""

from __future__ import annotations

from dataclasses import dataclass

from lsprotocol import types

from lsp_server.text import Document, Encoding, Place

LONGEST_REPEATED = 400  # characters of a line that an item repeats


@dataclass(frozen=True, slots=True)
class Selection:
    """The entry that is selected in the editor's popup menu: `text` would replace what is between two places."""

    start: Place
    end: Place
    text: str


def selection_of(
    document: Document, place: Place, info: types.SelectedCompletionInfo | None, encoding: Encoding
) -> Selection | None:
    """The selected entry, or None where there is none or it is not about the text at `place`."""
    if info is None:
        return None
    start = document.locate((info.range.start.line, info.range.start.character), encoding)
    end = document.locate((info.range.end.line, info.range.end.character), encoding)
    around_cursor = start.line == place.line == end.line and start.column <= place.column <= end.column
    return Selection(start, end, info.text) if around_cursor else None


def sides(document: Document, place: Place, selection: Selection | None) -> tuple[str, str]:
    """What the model is to see left and right of the cursor: with the selected entry accepted, if there is one."""
    if selection is None:
        return document.split_at(place)
    left, _ = document.split_at(selection.start)
    _, right = document.split_at(selection.end)
    return left + selection.text, right


def item(
    document: Document, place: Place, selection: Selection | None, text: str, encoding: Encoding
) -> types.InlineCompletionItem:
    """The item that shows `text` at `place`."""
    before, after = document.around(place)
    if selection is not None:
        start, end, insert = selection.start, selection.end, selection.text + text
    elif after or len(before) > LONGEST_REPEATED:
        start, end, insert = place, place, text
    else:
        start, end, insert = Place(place.line, 0), place, before + text
    replaced = document.lines[place.line][start.column : end.column]
    return types.InlineCompletionItem(
        insert_text=insert,
        # Editors show an item while what it replaces begins this text. A selected entry may be spelled otherwise
        # than what was typed.
        filter_text=None if insert.startswith(replaced) else replaced,
        range=types.Range(_position(document, start, encoding), _position(document, end, encoding)),
    )


def _position(document: Document, place: Place, encoding: Encoding) -> types.Position:
    return types.Position(*document.position(place, encoding))
