"""The command that downloads a better model, for editors that cannot ask the user whether to download the model."""

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
