"""The language server: the handler of each message, and the messages that the session sends to its client.

pygls calls the handlers and writes messages. Other parts of pygls are replaced, for reasons that these modules explain:
the reading of messages (`lsp_server.framing`, `lsp_server.protocol`), the copies of documents (`lsp_server.text`), and
the transport (`lsp_server.transport`). Internal errors are logged, and not shown to the user.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.server import LanguageServer

from lsp_server.features import (
    acceptance,
    configuration,
    documents,
    inline_completion,
    lifecycle,
    model,
    why,
    workspace,
)
from lsp_server.log import ClientHandler
from lsp_server.notices import Severity
from lsp_server.progress import ProgressBars
from lsp_server.protocol import Protocol, plain_converter
from lsp_server.session import Session
from lsp_server.status import Status
from policy.tracing import traced

log = logging.getLogger(__name__)

STATUS_METHOD = "repoformer/status"

_HANDLERS: dict[str, Callable[..., object]] = {
    types.INITIALIZE: lifecycle.initialize,
    types.INITIALIZED: lifecycle.initialized,
    types.SHUTDOWN: lifecycle.shutdown,
    types.EXIT: lifecycle.leave,
    types.TEXT_DOCUMENT_DID_OPEN: documents.opened,
    types.TEXT_DOCUMENT_DID_CHANGE: documents.changed,
    types.TEXT_DOCUMENT_DID_CLOSE: documents.closed,
    types.TEXT_DOCUMENT_INLINE_COMPLETION: inline_completion.complete,
    types.WORKSPACE_DID_CHANGE_CONFIGURATION: configuration.changed,
    types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS: workspace.folders_changed,
    types.WORKSPACE_DID_CHANGE_WATCHED_FILES: workspace.files_changed,
    acceptance.SHOWN: acceptance.shown,
    acceptance.PARTLY_ACCEPTED: acceptance.partly_accepted,
    documents.FOCUSED: documents.focused,
    why.METHOD: why.why,
}
_OPTIONS = {types.TEXT_DOCUMENT_INLINE_COMPLETION: types.InlineCompletionOptions()}
# The built-in handlers of pygls that this server keeps. The others store documents and notebooks.
_BUILT_IN = frozenset(
    {types.INITIALIZE, types.INITIALIZED, types.SHUTDOWN, types.SET_TRACE, types.WORKSPACE_EXECUTE_COMMAND}
)
_MESSAGE_TYPES = {
    "error": types.MessageType.Error,
    "warning": types.MessageType.Warning,
    "info": types.MessageType.Info,
}


class RepoformerServer(LanguageServer):
    """The server of one client. It has to be created on a running event loop.

    `defaults` has the settings of the command line.
    """

    protocol: Protocol

    def __init__(self, defaults: Mapping[str, object] | None = None) -> None:
        super().__init__(
            "repoformer-lsp",
            version("repoformer-lsp"),
            text_document_sync_kind=types.TextDocumentSyncKind.Incremental,
            protocol_cls=Protocol,
            converter_factory=plain_converter,
        )
        for method in self.protocol.fm.builtin_features.keys() - _BUILT_IN:
            del self.protocol.fm.builtin_features[method]
        for method, handler in _HANDLERS.items():
            self.feature(method, _OPTIONS.get(method))(traced(method, handler))
        acceptance.register(self)
        configuration.accept_key(self)
        model.register(self)
        self.client_name = ""
        self.session = Session(self, defaults or {})
        self.protocol.begun = lambda: self.session.begun
        self._bars = ProgressBars(self)
        self.log_handler = ClientHandler(self._forward_log)

    def report_server_error(self, error: Exception, source: Any) -> None:
        """Log an internal error, but not its message, which may quote a document."""
        places = error.data.get("traceback", []) if isinstance(error, JsonRpcException) and error.data else []
        log.error("internal error: %s\n%s", type(error).__name__, "".join(places), exc_info=error)

    # -- lsp_server.context.HandlerContext ----------------------------------------------------------------------------

    async def ask(self, method: str, params: Any) -> Any:
        """Send a request and wait for the answer. Raises `JsonRpcException` if the answer is an error.

        The future is shielded, because pygls 2.1 fails when the answer to a cancelled future arrives.
        """
        return await asyncio.shield(self.protocol.send_request_async(method, params))

    async def register(self, name: str, method: str, options: Any) -> None:
        """Register a capability with the client. If the client refuses, log a warning."""
        registration = types.Registration(id=name, method=method, register_options=options)
        try:
            await self.ask(types.CLIENT_REGISTER_CAPABILITY, types.RegistrationParams([registration]))
        except JsonRpcException as error:
            log.warning("the client refused to register %s: %s", method, error)

    # -- lsp_server.session.ClientOutput ------------------------------------------------------------------------------

    def show(self, severity: Severity, text: str) -> None:
        """Show a message to the user."""
        self.window_show_message(types.ShowMessageParams(type=_MESSAGE_TYPES[severity], message=text))

    def report(self, status: Status) -> None:
        """Send `repoformer/status`."""
        self.protocol.notify(STATUS_METHOD, status.to_json())

    def show_progress(self, task: str, share: float | None) -> None:
        """Show the progress of a task, if the client supports progress bars."""
        self._bars.show(task, share)

    async def choose(self, text: str, actions: Sequence[str], otherwise: str) -> str | None:
        """Ask the user with `window/showMessageRequest`. Return the chosen action, or None.

        If the client cannot ask, show the message `otherwise`. This also applies to Neovim, because its prompt would
        receive the keys that the user is typing.
        """
        window, client = self.client_capabilities.window, self.client_name
        if window is None or window.show_message is None or client == "Neovim":
            self.show("info", otherwise)
            return None
        items = [types.MessageActionItem(title=action) for action in actions]
        asked = types.ShowMessageRequestParams(type=types.MessageType.Info, message=text, actions=items)
        try:
            answer = await self.ask(types.WINDOW_SHOW_MESSAGE_REQUEST, asked)
        except JsonRpcException as error:
            log.info("the client did not show the question: %s", error)
            return None
        return answer.title if answer else None

    def _forward_log(self, level: int, line: str) -> None:
        kind = (
            types.MessageType.Error
            if level >= logging.ERROR
            else types.MessageType.Warning
            if level >= logging.WARNING
            else types.MessageType.Info
            if level >= logging.INFO
            else types.MessageType.Debug
        )
        self.window_log_message(types.LogMessageParams(type=kind, message=line))
