"""Handle `repoformer/why`: report how the last completion of a document was made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsp_server.features.plain import member
from lsp_server.report import completion_report

if TYPE_CHECKING:
    from indexer.model import Hit
    from lsp_server.context import HandlerContext
    from lsp_server.session import Record

METHOD = "repoformer/why"


def why(ls: HandlerContext, params: Any) -> dict[str, Any] | None:
    """Return the report about the last completion of the document in `params`, or None if there is no completion.

    If `params` has no document, the report is about the last completion of any document.
    """
    uri = member(member(params, "textDocument"), "uri")
    record = ls.session.record(uri if isinstance(uri, str) else None)
    return _report(record) if record else None


def _report(record: Record) -> dict[str, Any]:
    report = completion_report(record.completion)
    for chunk, hit in zip(report["chunks"], record.completion.hits, strict=True):
        chunk |= _location(hit)
    line, character = record.position
    return {
        "uri": record.uri,
        "position": {"line": line, "character": character},
        "fate": record.fate,
        **report,
    }


def _location(hit: Hit) -> dict[str, Any]:
    """Return the location of a chunk. The range has whole lines, so it does not depend on the position encoding."""
    return {
        "uri": hit.chunk.file.as_uri(),
        "range": {
            "start": {"line": hit.chunk.start_line - 1, "character": 0},
            "end": {"line": hit.chunk.end_line, "character": 0},
        },
    }
