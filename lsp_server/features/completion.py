"""Handle `textDocument/completion`: the suggestion as an entry of the completion list, for editors without ghost text.

This feature is off by default, because an editor with ghost text would show each suggestion twice. The setting
`completion` turns it on, but only in the `initializationOptions`, because the other settings arrive after the server
has sent its capabilities.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lsprotocol import types

from lsp_server.features import acceptance
from lsp_server.text import Place

if TYPE_CHECKING:
    from lsp_server.context import HandlerContext
    from lsp_server.session import Record
    from lsp_server.text import Document, Encoding

NOTHING = types.CompletionList(is_incomplete=True, items=[])
_WORD = re.compile(r"\w*")
_LABEL_CHARACTERS = 60
_LONGEST_WORD = 200  # characters; of a longer word, only the end is used
_DOCUMENTED = 200  # the entry's documentation shows this number of characters before the cursor


def register(ls: HandlerContext) -> None:
    """Register the handler and the capability for this client."""
    ls.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions())(complete)


async def complete(ls: HandlerContext, params: types.CompletionParams) -> types.CompletionList:
    """Return a list with the completion at a cursor.

    The list is marked as incomplete, so that editors send another request after the next keystroke.
    """
    session = ls.session
    uri = params.text_document.uri
    with session.latest(uri):
        found = session.place_of(uri, (params.position.line, params.position.character))
        if found is None:
            return NOTHING
        document, place = found
        record = await session.complete(document, place, invoked=False)
        if record is None or not record.completion.text:
            return NOTHING
        return types.CompletionList(is_incomplete=True, items=[entry(document, place, record, session.encoding)])


def entry(document: Document, place: Place, record: Record, encoding: Encoding) -> types.CompletionItem:
    """Return the suggestion as an entry of the completion list.

    The entry replaces the word before the cursor, because editors compare this word with the text of each entry.
    """
    before, _ = document.around(place)
    word = _word(before)
    line, column = document.position(place, encoding)
    start = document.position(Place(place.line, place.column - len(word)), encoding)
    text = word + record.completion.text
    first = text.strip().split("\n", 1)[0]
    more = "…" if first != text.strip() or len(first) > _LABEL_CHARACTERS else ""
    return types.CompletionItem(
        label=first[:_LABEL_CHARACTERS] + more,
        kind=types.CompletionItemKind.Text,
        detail="repoformer",
        documentation=types.MarkupContent(
            types.MarkupKind.Markdown,
            f"```{document.language_id}\n{before.lstrip()[-_DOCUMENTED:]}{record.completion.text}\n```",
        ),
        filter_text=text,
        sort_text=" ",  # sorts the entry before those that begin with a letter
        insert_text_format=types.InsertTextFormat.PlainText,
        insert_text_mode=types.InsertTextMode.AsIs,
        text_edit=types.TextEdit(types.Range(types.Position(*start), types.Position(line, column)), text),
        command=acceptance.command(record.number),
    )


def _word(before: str) -> str:
    """Return the word at the end of `before`.

    The text is matched backward, because a search from its beginning would try to match at every character.
    """
    found = _WORD.match(before[: -_LONGEST_WORD - 1 : -1])
    return found[0][::-1] if found else ""
