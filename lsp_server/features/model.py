"""The command that downloads a better model, for editors that show a message instead of a question."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lsp_server.context import HandlerContext

COMMAND = "repoformer.getModel"


def register(ls: HandlerContext) -> None:
    """Register the command (`workspace/executeCommand`)."""

    def get_model() -> None:
        ls.session.get_model()

    ls.command(COMMAND)(get_model)
