"""Convert the text of a completion to an inline completion item, which consists of a range and a text.

This form of the item works in VS Code, Neovim 0.12 and Emacs with eglot:

- At the end of a line, the range reaches from the line's start to the cursor, and the text begins with the line's text.
  So the user can type through the suggestion in all three editors.
- In the middle of a line, the range is empty, because Neovim draws an item with a longer range over the text after the
  cursor.
- At the end of a very long line, the range is empty too, because otherwise the item would repeat the long line.
- The text is not a snippet, because Neovim inserts the prefix of a snippet with a range twice.
- If an entry of the completion menu is selected, the item has the entry's range, and its text begins with the entry's
  text. VS Code shows no other items then.
"""

from __future__ import annotations

from dataclasses import dataclass

from lsprotocol import types

from lsp_server.text import Document, Encoding, Place, normal

LONGEST_REPEATED = 400  # an item repeats the text before the cursor only if it has at most this many characters


@dataclass(frozen=True, slots=True)
class Selection:
    """The selected entry of the editor's completion menu.

    If the user accepts the entry, `text` replaces the text from `start` to `end`.
    """

    start: Place
    end: Place
    text: str


def selection_of(
    document: Document, place: Place, info: types.SelectedCompletionInfo | None, encoding: Encoding
) -> Selection | None:
    """Return the selected entry from `info`.

    Return None if no entry is selected, or if the entry's range is not on the line of `place` or does not contain it.
    """
    if info is None:
        return None
    start = document.locate((info.range.start.line, info.range.start.character), encoding)
    end = document.locate((info.range.end.line, info.range.end.character), encoding)
    around_cursor = start.line == place.line == end.line and start.column <= place.column <= end.column
    return Selection(start, end, normal(info.text)) if around_cursor else None


def sides(document: Document, selection: Selection) -> tuple[str, str]:
    """Return the text before and after the cursor, as if the user had accepted the selected entry."""
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
        # Editors show an item only if `filter_text`, by default `insert_text`, begins with the replaced text. The text
        # of a selected entry may begin with another text.
        filter_text=None if insert.startswith(replaced) else replaced,
        range=types.Range(_position(document, start, encoding), _position(document, end, encoding)),
    )


def _position(document: Document, place: Place, encoding: Encoding) -> types.Position:
    return types.Position(*document.position(place, encoding))
