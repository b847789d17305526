"""What became of a suggestion: shown, accepted in part, accepted.

Acceptance comes as the item's `command`, which every editor runs when it inserts an item; the rest as the
notifications that Copilot's server has for it (`textDocument/didShowCompletion`, `didPartiallyAcceptCompletion`).
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
    """The command of the item that shows a candidate of completion `number`."""
    return types.Command("Suggestion accepted", COMMAND, arguments=[number, candidate])


def register(ls: HandlerContext) -> None:
    """Offer the command."""

    def accepted(number: int, candidate: int = 0) -> None:
        ls.session.happened(number, "accepted", candidate)

    ls.command(COMMAND)(accepted)


def shown(ls: HandlerContext, params: Any) -> None:
    """An item is on the screen."""
    if (number := _number(params)) is not None:
        ls.session.happened(number, "shown")


def partly_accepted(ls: HandlerContext, params: Any) -> None:
    """A word or a line of an item was taken."""
    if (number := _number(params)) is not None:
        ls.session.happened(number, "partly accepted")


def _number(params: Any) -> int | None:
    """The number in the command of `params.item`."""
    arguments = member(member(member(params, "item"), "command"), "arguments")
    return arguments[0] if isinstance(arguments, list) and arguments and isinstance(arguments[0], int) else None
