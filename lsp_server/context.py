"""What a message handler uses of the language server.

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

    `session` holds the client's documents, settings and requests. `log_handler` forwards log lines to the client once
    it is attached. `client_name` is what the client calls itself. The other members are those of
    `pygls.lsp.server.LanguageServer`, but for `ask` and `register`.
    """

    session: Session
    log_handler: ClientHandler
    client_name: str

    @property
    def client_capabilities(self) -> types.ClientCapabilities:
        """What the client said it can do."""

    @property
    def workspace(self) -> Workspace:
        """The position encoding that was agreed on, among other things."""

    @property
    def work_done_progress(self) -> Progress:
        """Sends `$/progress`."""

    def command(self, command_name: str) -> Callable[[F], F]:
        """Register a handler of `workspace/executeCommand`."""

    def feature(self, feature_name: str, options: Any | None = None) -> Callable[[F], F]:
        """Register the handler of a method."""

    async def ask(self, method: str, params: Any) -> Any:
        """Send a request and wait for the answer. Raises `JsonRpcException` when the answer is an error."""

    async def register(self, name: str, method: str, options: Any) -> None:
        """Register a capability at run time; a refusal is logged."""
