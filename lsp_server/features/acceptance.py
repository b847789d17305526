"""Handle the messages about a suggestion: it was shown, partly accepted, or accepted.

When the user accepts an item, the editor runs the item's `command`. When an item is shown or partly accepted, editors
send notifications that Copilot's server defines (`textDocument/didShowCompletion`,
`textDocument/didPartiallyAcceptCompletion`).
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
    """Return the command for an item, which tells the server that the user accepted it.

    The item has the text `candidate` of the completion `number`.
    """
    return types.Command("Suggestion accepted", COMMAND, arguments=[number, candidate])


def register(ls: HandlerContext) -> None:
    """Register the command that editors run when the user accepts an item."""

    def accepted(number: int, candidate: int = 0) -> None:
        ls.session.happened(number, "accepted", candidate)

    ls.command(COMMAND)(accepted)


def shown(ls: HandlerContext, params: Any) -> None:
    """Handle `textDocument/didShowCompletion`."""
    if (number := _number(params)) is not None:
        ls.session.happened(number, "shown")


def partly_accepted(ls: HandlerContext, params: Any) -> None:
    """Handle `textDocument/didPartiallyAcceptCompletion`: the user accepted a word or a line of the suggestion."""
    if (number := _number(params)) is not None:
        ls.session.happened(number, "partly accepted")


def _number(params: Any) -> int | None:
    """Return the number of the completion, from the command in `params.item`, or None if it is missing."""
    arguments = member(member(member(params, "item"), "command"), "arguments")
    return arguments[0] if isinstance(arguments, list) and arguments and isinstance(arguments[0], int) else None
