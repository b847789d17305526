"""`textDocument/didOpen`, `didChange`, `didClose`: the client's text, kept in our own model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsprotocol import types

from lsp_server.text import Change, Document

if TYPE_CHECKING:
    from lsp_server.server import RepoformerServer


def opened(ls: RepoformerServer, params: types.DidOpenTextDocumentParams) -> None:
    """Take over a document's text from the client."""
    sent = params.text_document
    ls.session.put(Document.of(sent.uri, sent.text, version=sent.version, language_id=str(sent.language_id)))


def changed(ls: RepoformerServer, params: types.DidChangeTextDocumentParams) -> None:
    """Apply what the person typed."""
    session = ls.session
    uri, version = params.text_document.uri, params.text_document.version
    document = session.document(uri)
    if document is not None:
        session.put(document.apply(map(_change, params.content_changes), version, session.encoding))


def closed(ls: RepoformerServer, params: types.DidCloseTextDocumentParams) -> None:
    """The file on disk counts again."""
    ls.session.drop(params.text_document.uri)


def _change(sent: types.TextDocumentContentChangeEvent) -> Change:
    if isinstance(sent, types.TextDocumentContentChangePartial):
        start, end = sent.range.start, sent.range.end
        return Change(sent.text, (start.line, start.character), (end.line, end.character))
    return Change(sent.text)
