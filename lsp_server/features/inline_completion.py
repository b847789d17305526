"""Handle `textDocument/inlineCompletion`, the main request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsprotocol import types

from lsp_server import items
from lsp_server.features import acceptance

if TYPE_CHECKING:
    from lsp_server.context import HandlerContext

NOTHING = types.InlineCompletionList(items=[])


async def complete(ls: HandlerContext, params: types.InlineCompletionParams) -> types.InlineCompletionList:
    """Return the completions at a cursor.

    A newer request for the document cancels this one. The answer to a cancelled request is an error and not an empty
    list, because Neovim would hide the visible suggestion after an empty list.
    """
    session = ls.session
    uri = params.text_document.uri
    with session.latest(uri):
        found = session.place_of(uri, (params.position.line, params.position.character))
        if found is None:
            return NOTHING
        document, place = found
        selection = items.selection_of(document, place, params.context.selected_completion_info, session.encoding)
        invoked = params.context.trigger_kind == types.InlineCompletionTriggerKind.Invoked
        sides = items.sides(document, selection) if selection else None
        record = await session.complete(document, place, sides, invoked=invoked)
        if record is None or not record.completion.text:
            return NOTHING
        offered = []
        for candidate, text in enumerate((record.completion.text, *record.completion.others)):
            item = items.item(document, place, selection, text, session.encoding)
            item.command = acceptance.command(record.number, candidate)
            offered.append(item)
        return types.InlineCompletionList(offered)
