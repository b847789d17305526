"""The command that fetches a better model, for editors in which a person is told of it and not asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lsp_server.context import HandlerContext

COMMAND = "repoformer.getModel"


def register(ls: HandlerContext) -> None:
    """Offer the command (`workspace/executeCommand`)."""

    def get_model() -> None:
        ls.session.get_model()

    ls.command(COMMAND)(get_model)
