"""The command that downloads a better model. Some editors cannot ask the user, and show a message with this command."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lsp_server.context import HandlerContext

COMMAND = "repoformer.getModel"


def register(ls: HandlerContext) -> None:
    """Register the command."""

    def get_model() -> None:
        ls.session.get_model()

    ls.command(COMMAND)(get_model)
