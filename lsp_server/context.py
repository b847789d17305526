"""The part of the language server that message handlers use.

Handlers depend on this `Protocol` and not on `lsp_server.server`, which imports every handler to register it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from lsprotocol import types
    from pygls.progress import Progress
    from pygls.workspace import Workspace

    from lsp_server.log import ClientHandler
    from lsp_server.session import Session

F = TypeVar("F", bound=Callable[..., Any])


class HandlerContext(Protocol):
    """The server of one client, as a handler sees it.

    `session` has the client's documents, settings and requests. `log_handler` forwards log lines to the client once it
    is attached. `client_name` is the name that the client sent. `RepoformerServer` defines these attributes, `ask` and
    `register`. It inherits the other members from `pygls.lsp.server.LanguageServer`.
    """

    session: Session
    log_handler: ClientHandler
    client_name: str

    @property
    def client_capabilities(self) -> types.ClientCapabilities:
        """The capabilities that the client announced."""

    @property
    def workspace(self) -> Workspace:
        """The workspace of pygls. Handlers use only its `position_encoding`, which was negotiated with the client."""

    @property
    def work_done_progress(self) -> Progress:
        """The object of pygls that sends `$/progress` notifications."""

    def command(self, command_name: str) -> Callable[[F], F]:
        """Return a decorator that registers the handler of a command (`workspace/executeCommand`)."""

    def feature(self, feature_name: str, options: Any | None = None) -> Callable[[F], F]:
        """Return a decorator that registers the handler of a method."""

    async def ask(self, method: str, params: Any) -> Any:
        """Send a request and wait for the answer. Raises `JsonRpcException` if the answer is an error."""

    async def register(self, name: str, method: str, options: Any) -> None:
        """Register a capability with the client. If the client refuses, log a warning."""
