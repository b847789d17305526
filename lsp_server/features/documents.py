"""Handle `textDocument/didOpen`, `didChange` and `didClose`, which update the server's copy of a document.

The notification `didFocus`, which Copilot's server defines, says in which document the user works.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsprotocol import types

from lsp_server.features.plain import member
from lsp_server.text import Change, Document

FOCUSED = "textDocument/didFocus"

if TYPE_CHECKING:
    from lsp_server.context import HandlerContext


def opened(ls: HandlerContext, params: types.DidOpenTextDocumentParams) -> None:
    """Store the text of an opened document."""
    sent = params.text_document
    ls.session.put(Document.of(sent.uri, sent.text, version=sent.version, language_id=str(sent.language_id)))
    ls.session.focus(sent.uri)


def changed(ls: HandlerContext, params: types.DidChangeTextDocumentParams) -> None:
    """Apply the edits to the document."""
    session = ls.session
    uri, version = params.text_document.uri, params.text_document.version
    document = session.document(uri)
    if document is not None:
        session.put(document.apply(map(_change, params.content_changes), version, session.encoding))


def focused(ls: HandlerContext, params: Any) -> None:
    """Handle `textDocument/didFocus`: the user now works in a document. `params` may have the cursor's position."""
    uri, position = member(member(params, "textDocument"), "uri"), member(params, "position")
    line, character = member(position, "line"), member(position, "character")
    if isinstance(uri, str):
        ls.session.focus(uri, (line, character) if isinstance(line, int) and isinstance(character, int) else None)


def closed(ls: HandlerContext, params: types.DidCloseTextDocumentParams) -> None:
    """Close the document."""
    ls.session.drop(params.text_document.uri)


def _change(sent: types.TextDocumentContentChangeEvent) -> Change:
    if isinstance(sent, types.TextDocumentContentChangePartial):
        start, end = sent.range.start, sent.range.end
        return Change(sent.text, (start.line, start.character), (end.line, end.character))
    return Change(sent.text)
