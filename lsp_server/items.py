"""Convert the text of a completion to an inline completion item: its range and its text.

The shape was chosen by trying it in VS Code, Neovim 0.12 and Emacs with eglot. At the end of a line, the range reaches
from the line's start to the cursor, and the text begins with the line's text: then the user can type through the
suggestion in all three. In the middle of a line, the range is empty, because Neovim draws a longer one over the text
after the cursor. At the end of a very long line, the range is empty too, because the item would repeat the line. There
are no snippets, because Neovim doubles the prefix of a snippet with a range. If an entry of a popup menu is selected,
VS Code shows an item only if it extends that entry over the entry's own range.
"""

from __future__ import annotations

from dataclasses import dataclass

from lsprotocol import types

from lsp_server.text import Document, Encoding, Place

LONGEST_REPEATED = 400  # characters of a line that an item repeats


@dataclass(frozen=True, slots=True)
class Selection:
    """The selected entry of the editor's popup menu: `text` would replace the text from `start` to `end`."""

    start: Place
    end: Place
    text: str


def selection_of(
    document: Document, place: Place, info: types.SelectedCompletionInfo | None, encoding: Encoding
) -> Selection | None:
    """Return the selected entry, or None if there is none or its range does not contain `place`."""
    if info is None:
        return None
    start = document.locate((info.range.start.line, info.range.start.character), encoding)
    end = document.locate((info.range.end.line, info.range.end.character), encoding)
    around_cursor = start.line == place.line == end.line and start.column <= place.column <= end.column
    return Selection(start, end, info.text) if around_cursor else None


def sides(document: Document, place: Place, selection: Selection | None) -> tuple[str, str]:
    """Return the text left and right of the cursor, as if the selected entry were accepted."""
    if selection is None:
        return document.split_at(place)
    left, _ = document.split_at(selection.start)
    _, right = document.split_at(selection.end)
    return left + selection.text, right


def item(
    document: Document, place: Place, selection: Selection | None, text: str, encoding: Encoding
) -> types.InlineCompletionItem:
    """Return the item that shows `text` at `place`."""
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
        # Editors show an item if this text begins with the replaced text. A selected entry may be spelled differently.
        filter_text=None if insert.startswith(replaced) else replaced,
        range=types.Range(_position(document, start, encoding), _position(document, end, encoding)),
    )


def _position(document: Document, place: Place, encoding: Encoding) -> types.Position:
    return types.Position(*document.position(place, encoding))
