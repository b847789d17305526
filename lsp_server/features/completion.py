"""`textDocument/completion`: the suggestion as an entry of the completion list, for editors without ghost text.

Off by default, because an editor with ghost text would show each suggestion twice. `completion` in the
`initializationOptions` turns it on. `workspace/configuration` would be too late: capabilities are sent before it.
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
_LONGEST_WORD = 200  # characters; a longer word is no name
_DOCUMENTED = 200  # characters of the line before the cursor that the documentation shows


def register(ls: HandlerContext) -> None:
    """Register the handler for this client."""
    ls.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions())(complete)


async def complete(ls: HandlerContext, params: types.CompletionParams) -> types.CompletionList:
    """Complete at a cursor. The list is always incomplete, so that editors ask again after the next key."""
    session = ls.session
    uri = params.text_document.uri
    with session.latest(uri):
        found = session.place_of(uri, (params.position.line, params.position.character))
        if found is None:
            return NOTHING
        document, place = found
        record = await session.complete(document, place, document.split_at(place), invoked=False)
        if record is None or not record.completion.text:
            return NOTHING
        return types.CompletionList(is_incomplete=True, items=[entry(document, place, record, session.encoding)])


def entry(document: Document, place: Place, record: Record, encoding: Encoding) -> types.CompletionItem:
    """Return the suggestion as an entry that replaces the word at the cursor, by which editors filter entries."""
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
        sort_text=" ",  # before everything that begins with a letter
        insert_text_format=types.InsertTextFormat.PlainText,
        insert_text_mode=types.InsertTextMode.AsIs,
        text_edit=types.TextEdit(types.Range(types.Position(*start), types.Position(line, column)), text),
        command=acceptance.command(record.number),
    )


def _word(before: str) -> str:
    """Return the word at the end of a line. Matched backward, because a search would start at every character."""
    found = _WORD.match(before[: -_LONGEST_WORD - 1 : -1])
    return found[0][::-1] if found else ""
