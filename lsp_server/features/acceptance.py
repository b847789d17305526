"""Messages about what happened to a suggestion: shown, partly accepted, accepted.

An editor that inserts an item runs the item's `command`. The other two are notifications that Copilot's server defines
(`textDocument/didShowCompletion`, `textDocument/didPartiallyAcceptCompletion`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsprotocol import types

from lsp_server.features.plain import member

if TYPE_CHECKING:
    from lsp_server.context import HandlerContext

COMMAND = "repoformer.accepted"
SHOWN = "textDocument/didShowCompletion"
PARTLY_ACCEPTED = "textDocument/didPartiallyAcceptCompletion"


def command(number: int, candidate: int = 0) -> types.Command:
    """Return the command of an item that shows a candidate of completion `number`."""
    return types.Command("Suggestion accepted", COMMAND, arguments=[number, candidate])


def register(ls: HandlerContext) -> None:
    """Register the command."""

    def accepted(number: int, candidate: int = 0) -> None:
        ls.session.happened(number, "accepted", candidate)

    ls.command(COMMAND)(accepted)


def shown(ls: HandlerContext, params: Any) -> None:
    """Handle `textDocument/didShowCompletion`."""
    if (number := _number(params)) is not None:
        ls.session.happened(number, "shown")


def partly_accepted(ls: HandlerContext, params: Any) -> None:
    """Handle `textDocument/didPartiallyAcceptCompletion`: a word or a line was accepted."""
    if (number := _number(params)) is not None:
        ls.session.happened(number, "partly accepted")


def _number(params: Any) -> int | None:
    """Return the completion's number in the command of `params.item`."""
    arguments = member(member(member(params, "item"), "command"), "arguments")
    return arguments[0] if isinstance(arguments, list) and arguments and isinstance(arguments[0], int) else None
