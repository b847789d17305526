"""`repoformer/why`: how the last completion in a document came about."""

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
    """Report on the last completion, of `params.textDocument.uri` or of any document; null where there was none."""
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
    """Where to jump to: whole lines, so the position encoding does not matter."""
    return {
        "uri": hit.chunk.file.as_uri(),
        "range": {
            "start": {"line": hit.chunk.start_line - 1, "character": 0},
            "end": {"line": hit.chunk.end_line, "character": 0},
        },
    }
