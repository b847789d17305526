"""Handle `initialize`, `initialized`, `shutdown` and `exit`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from lsprotocol import types

from lsp_server.features import completion, configuration, workspace

if TYPE_CHECKING:
    from lsp_server.context import HandlerContext
    from lsp_server.text import Encoding

log = logging.getLogger(__name__)

_ENCODINGS: dict[object, Encoding] = {"utf-8": "utf-8", "utf-16": "utf-16", "utf-32": "utf-32"}


def initialize(ls: HandlerContext, params: types.InitializeParams) -> None:
    """Store the client's name, capabilities and options. The server sends nothing before `initialized`."""
    client = params.client_info
    ls.client_name = client.name if client else ""
    log.info("client: %s %s", client.name if client else "unnamed", (client.version if client else "") or "")
    ls.session.begin(
        encoding=_ENCODINGS.get(ls.workspace.position_encoding, "utf-16"),
        roots=workspace.roots_of(params),
        options=params.initialization_options,
        client_process=params.process_id,
    )
    if ls.session.settings.completion:
        completion.register(ls)


async def initialized(ls: HandlerContext, params: types.InitializedParams) -> None:
    """Get the settings, then start to load the model and to index the workspace."""
    ls.log_handler.attach()
    await configuration.pull(ls)
    ls.session.start()
    await configuration.register(ls)


def shutdown(ls: HandlerContext, params: None) -> None:
    """Handle `shutdown`: cancel the running requests."""
    ls.session.shutting_down()


def leave(ls: HandlerContext, params: None) -> None:
    """Handle `exit`: end the connection."""
    ls.session.stop()
