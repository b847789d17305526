"""Get the settings from the client. `workspace/configuration` overrides `initializationOptions`."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from lsprotocol import types
from pygls.exceptions import JsonRpcException

from lsp_server.settings import SECTION

if TYPE_CHECKING:
    from lsp_server.context import HandlerContext

log = logging.getLogger(__name__)

ANSWER_TIMEOUT = 5.0  # seconds
SET_KEY = "repoformer.setServerKey"


def accept_key(ls: HandlerContext) -> None:
    """Register the command with which an editor sends the API key of the server that generates."""

    def set_server_key(key: str) -> None:
        ls.session.set_server_key(key)

    ls.command(SET_KEY)(set_server_key)


async def register(ls: HandlerContext) -> None:
    """Register for notifications about changed settings, if the client requires a registration."""
    workspace = ls.client_capabilities.workspace
    changes = workspace.did_change_configuration if workspace else None
    if changes and changes.dynamic_registration:
        options = types.DidChangeConfigurationRegistrationOptions(section=SECTION)
        await ls.register("repoformer-configuration", types.WORKSPACE_DID_CHANGE_CONFIGURATION, options)


async def pull(ls: HandlerContext) -> None:
    """Request the settings, if the client supports the request. If it does not answer, the settings do not change."""
    workspace = ls.client_capabilities.workspace
    if not (workspace and workspace.configuration):
        return
    asked = types.ConfigurationParams([types.ConfigurationItem(section=SECTION)])
    try:
        answer = await asyncio.wait_for(ls.ask(types.WORKSPACE_CONFIGURATION, asked), ANSWER_TIMEOUT)
    # On Python 3.10, `asyncio.TimeoutError` is not the built-in `TimeoutError`.
    except (asyncio.TimeoutError, JsonRpcException) as error:
        log.warning("the client did not answer workspace/configuration (%s)", type(error).__name__)
    else:
        ls.session.configure(answer[0] if answer else None)


async def changed(ls: HandlerContext, params: types.DidChangeConfigurationParams) -> None:
    """Handle `workspace/didChangeConfiguration`. If the client does not send the settings with it, request them."""
    sent = params.settings
    if isinstance(sent, dict) and SECTION in sent:
        ls.session.configure(sent[SECTION])
    else:
        await pull(ls)
