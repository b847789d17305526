"""JSON-RPC as LSP has it, for clients that make mistakes: every request gets one answer, and nothing ends the server.

pygls structures and dispatches messages. It leaves without an answer what is no message, what comes before `initialize`
or after `shutdown`, and requests whose parameters make no sense; and it keeps a record of every notification.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

from cattrs import Converter
from lsprotocol import converters, types
from pygls.exceptions import JsonRpcException
from pygls.protocol import (
    JsonRPCNotification,
    JsonRPCRequestMessage,
    JsonRPCResponseMessage,
    LanguageServerProtocol,
)

log = logging.getLogger(__name__)

_LARGEST = 2**31 - 1  # of LSP's uinteger


def plain_converter() -> Converter:
    """Structure messages as LSP says, and leave the values of others as JSON has them.

    pygls makes a class of its own for each object in those.
    """
    converter: Converter = converters.get_converter()  # type: ignore[no-untyped-call,unused-ignore]
    for kind, names in (
        (JsonRPCRequestMessage, ("id", "method", "jsonrpc", "params")),
        (JsonRPCResponseMessage, ("id", "jsonrpc", "result")),
        (JsonRPCNotification, ("method", "jsonrpc", "params")),
    ):
        converter.register_structure_hook(
            kind, lambda sent, _, kind=kind, names=names: kind(**{name: sent.get(name) for name in names})
        )
    return converter


class Protocol(LanguageServerProtocol):
    """One connection's messages."""

    begun: Callable[[], bool]  # whether the client has said who it is; set by the server
    _announced = False  # whether `initialized` has come

    def receive(self, body: bytes) -> None:
        """Handle one message, whatever it is."""
        try:
            message = json.loads(body)
        except (ValueError, RecursionError) as error:
            self._refuse(None, types.ErrorCodes.ParseError, f"not JSON ({type(error).__name__})")
            return
        if not isinstance(message, dict) or message.get("jsonrpc") != self.VERSION or not _well_formed(message):
            number = message.get("id") if isinstance(message, dict) else None
            asked = isinstance(message, dict) and "method" not in message
            if not asked:  # a response is never answered
                self._refuse(number, types.ErrorCodes.InvalidRequest, "not a message of JSON-RPC 2.0 (no batches)")
            return
        method = message.get("method")
        if method is not None and (refusal := self._refusal(method)):
            if "id" in message:
                self._refuse(message["id"], *refusal)
            return
        try:
            self.handle_message(self.structure_message(_repaired(message)))
        except JsonRpcException as error:
            if method is not None and "id" in message:
                self._send_response(message["id"], error=error.to_response_error())
            else:
                self._server._report_server_error(error, JsonRpcException)
        except Exception as error:
            self._server._report_server_error(error, JsonRpcException)

    def _refusal(self, method: str) -> tuple[types.ErrorCodes, str] | None:
        """Why a message cannot be handled in the present state of the connection."""
        begun = self.begun()
        if method == types.EXIT:
            return None
        if not begun and method != types.INITIALIZE:
            return types.ErrorCodes.ServerNotInitialized, "the server is not initialized"
        if begun and method == types.INITIALIZE:
            return types.ErrorCodes.InvalidRequest, "the server is initialized already"
        if method == types.INITIALIZED:
            if self._announced:
                return types.ErrorCodes.InvalidRequest, "the server is initialized already"
            self._announced = True
        if self._shutdown:
            return types.ErrorCodes.InvalidRequest, "the server is shutting down"
        return None

    def _refuse(self, number: object, code: types.ErrorCodes, message: str) -> None:
        known = number if isinstance(number, int | str) else None
        log.warning("refused a message: %s", message)
        # As plain values: lsprotocol leaves out an id that is null.
        self._send_data({"jsonrpc": self.VERSION, "id": known, "error": {"code": int(code), "message": message}})

    def _execute_handler(
        self,
        msg_id: Any,
        handler: Any,
        callback: Any,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Run a handler; forget it when it has ended. pygls forgets those of requests alone."""
        super()._execute_handler(msg_id, handler, callback, args, kwargs)

        def forget(done: object) -> None:
            if self._request_futures.get(msg_id) is done:
                del self._request_futures[msg_id]

        if future := self._request_futures.get(msg_id):
            loop = asyncio.get_running_loop()
            # Not at once: `shutdown` goes through the requests and cancels them.
            future.add_done_callback(lambda done: loop.call_soon(forget, done))

    def _send_response(self, msg_id: Any, result: Any = None, error: types.ResponseError | None = None) -> None:
        super()._send_response(msg_id, result, error)
        self._result_types.pop(msg_id, None)  # pygls keeps it where the answer is an error


def _well_formed(message: dict[str, Any]) -> bool:
    """Whether a message has the members that JSON-RPC wants of it."""
    number = message.get("id")
    numbered = number is None or (isinstance(number, int | str) and not isinstance(number, bool))
    if "method" in message:
        return numbered and isinstance(message["method"], str) and not ("id" in message and number is None)
    return numbered and ("result" in message or "error" in message)


def _repaired(message: dict[str, Any]) -> dict[str, Any]:
    """The message with edits as LSP has them: to drop one would leave us with another text than the client's.

    Clients send a line of 2^32 - 1 or more for the last one, and null for a range or a version that is absent.
    """
    if message.get("method") != types.TEXT_DOCUMENT_DID_CHANGE:
        return message
    match message.get("params"):
        case {"textDocument": dict(document), "contentChanges": list(changes)}:
            if document.get("version") is None:
                document["version"] = 0
            for change in changes:
                if isinstance(change, dict):
                    _repair(change)
    return message


def _repair(change: dict[str, Any]) -> None:
    if change.get("range") is None:
        change.pop("range", None)
    change.pop("rangeLength", None)  # deprecated, and not looked at
    match change.get("range"):
        case {"start": dict(start), "end": dict(end)}:
            for position in (start, end):
                for name in ("line", "character"):
                    value = position.get(name)
                    if isinstance(value, int | float):
                        position[name] = int(min(max(value, 0), _LARGEST)) if value == value else 0
