"""`repoformer/why`: how the last completion in a document came about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pygls.uris import from_fs_path

from lsp_server.report import completion_report

if TYPE_CHECKING:
    from indexer.model import Hit
    from lsp_server.server import RepoformerServer
    from lsp_server.session import Record

METHOD = "repoformer/why"


def why(ls: RepoformerServer, params: Any) -> dict[str, Any] | None:
    """Report on the last completion, of `params.textDocument.uri` or of any document; null where there was none."""
    uri = _member(_member(params, "textDocument"), "uri")
    record = ls.session.record(uri if isinstance(uri, str) else None)
    return _report(record) if record else None


def _report(record: Record) -> dict[str, Any]:
    report = completion_report(record.completion)
    for chunk, hit in zip(report["chunks"], record.completion.hits, strict=True):
        chunk |= _location(hit)
    return {"uri": record.uri, "position": {"line": record.position[0], "character": record.position[1]}, **report}


def _location(hit: Hit) -> dict[str, Any]:
    """Where to jump to: whole lines, so the position encoding does not matter."""
    return {
        "uri": from_fs_path(str(hit.chunk.file)),
        "range": {
            "start": {"line": hit.chunk.start_line - 1, "character": 0},
            "end": {"line": hit.chunk.end_line, "character": 0},
        },
    }


def _member(value: object, name: str) -> object:
    """A member of what pygls makes of parameters it has no type for: an object, or a dictionary."""
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)
