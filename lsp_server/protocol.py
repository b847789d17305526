"""JSON-RPC for LSP that tolerates clients' mistakes: every request gets one answer, and no message ends the server.

pygls converts messages to objects and calls their handlers. But it does not answer invalid messages, messages before
`initialize` or after `shutdown`, and requests with invalid parameters. It also keeps an entry for every notification
in memory. This module answers these messages and deletes these entries.
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

from policy.tracing import span

log = logging.getLogger(__name__)

_LARGEST = 2**31 - 1  # the largest `uinteger` of LSP


def plain_converter() -> Converter:
    """Return a converter that makes objects from the messages of LSP, and keeps other messages' parameters as JSON.

    The converter of pygls would create a class for each JSON object in the parameters of other messages.
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
    """Receives and sends the messages of one connection."""

    begun: Callable[[], bool]  # whether the client has sent `initialize`; set by the server
    _announced = False  # whether `initialized` has arrived

    def receive(self, body: bytes) -> None:
        """Handle the message with this body, which may be invalid."""
        try:
            with span("parse message"):
                message = json.loads(body)
        except (ValueError, RecursionError) as error:
            self._refuse(None, types.ErrorCodes.ParseError, f"not JSON ({type(error).__name__})")
            return
        if not isinstance(message, dict) or message.get("jsonrpc") != self.VERSION or not _well_formed(message):
            number = message.get("id") if isinstance(message, dict) else None
            is_response = isinstance(message, dict) and "method" not in message
            if not is_response:
                self._refuse(number, types.ErrorCodes.InvalidRequest, "not a JSON-RPC 2.0 message, or a batch")
            return
        method = message.get("method")
        if method is None:
            self._receive_answer(_repaired_answer(message))
            return
        if refusal := self._refusal(method):
            if "id" in message:
                self._refuse(message["id"], *refusal)
            return
        try:
            with span("parse message"):
                structured = self.structure_message(_repaired(message))
            self.handle_message(structured)
        except JsonRpcException as error:
            if "id" in message:
                self._send_response(message["id"], error=error.to_response_error())
            else:
                self._server._report_server_error(error, JsonRpcException)
        except Exception as error:
            self._server._report_server_error(error, JsonRpcException)

    def _receive_answer(self, answer: dict[str, Any]) -> None:
        """Handle the client's answer to a request. If the answer is invalid, the request fails, so nothing waits."""
        try:
            self.handle_message(self.structure_message(answer))
        except Exception as error:
            log.warning("an answer of the client is invalid: %s", type(error).__name__)
            if (future := self._request_futures.pop(answer["id"], None)) and not future.done():
                future.set_exception(error)

    def _refusal(self, method: str) -> tuple[types.ErrorCodes, str] | None:
        """Return why a message cannot be handled in the current state of the connection, or None."""
        begun = self.begun()
        if method == types.EXIT:
            return None
        if not begun and method != types.INITIALIZE:
            return types.ErrorCodes.ServerNotInitialized, "the server is not initialized"
        if begun and method == types.INITIALIZE:
            return types.ErrorCodes.InvalidRequest, "the server is already initialized"
        if method == types.INITIALIZED:
            if self._announced:
                return types.ErrorCodes.InvalidRequest, "the server is already initialized"
            self._announced = True
        if self._shutdown:
            return types.ErrorCodes.InvalidRequest, "the server is shutting down"
        return None

    def _refuse(self, number: object, code: types.ErrorCodes, message: str) -> None:
        known = number if isinstance(number, int | str) else None
        log.warning("a message of the client was refused: %s", message)
        # Send a plain dict, because lsprotocol omits an id that is null.
        self._send_data({"jsonrpc": self.VERSION, "id": known, "error": {"code": int(code), "message": message}})

    def _execute_handler(
        self,
        msg_id: Any,
        handler: Any,
        callback: Any,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Run a handler, and delete its future when it has ended. pygls deletes only the futures of requests."""
        super()._execute_handler(msg_id, handler, callback, args, kwargs)

        def forget(done: object) -> None:
            if self._request_futures.get(msg_id) is done:
                del self._request_futures[msg_id]

        if future := self._request_futures.get(msg_id):
            loop = asyncio.get_running_loop()
            # The future is deleted a little later, because `shutdown` cancels the requests while it iterates over their
            # futures.
            future.add_done_callback(lambda done: loop.call_soon(forget, done))

    def _send_response(self, msg_id: Any, result: Any = None, error: types.ResponseError | None = None) -> None:
        with span("send answer"):
            super()._send_response(msg_id, result, error)
        self._result_types.pop(msg_id, None)  # pygls keeps this entry if the answer is an error


def _well_formed(message: dict[str, Any]) -> bool:
    """Return whether a message has the members that JSON-RPC requires."""
    number = message.get("id")
    numbered = number is None or (isinstance(number, int | str) and not isinstance(number, bool))
    if "method" in message:
        return numbered and isinstance(message["method"], str) and not ("id" in message and number is None)
    return numbered and "id" in message


def _repaired_answer(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer with either a result or a valid error. Some clients omit a null result, or send a null error."""
    answer = {name: value for name, value in answer.items() if name != "error" or value is not None}
    if "error" not in answer:
        return {"result": None, **answer}
    error = answer["error"]
    known = error if isinstance(error, dict) else {"message": str(error)}
    return {**answer, "error": {"code": int(types.ErrorCodes.UnknownErrorCode), "message": "no message", **known}}


def _repaired(message: dict[str, Any]) -> dict[str, Any]:
    """Return `message` with a valid version and valid edits, if it opens or changes a document.

    If the server ignored such a message, its copy of the document would differ from the client's. Some clients send
    2^32 - 1 or more as the number of the last line, and null instead of omitting a range or a version.
    """
    if message.get("method") not in {types.TEXT_DOCUMENT_DID_OPEN, types.TEXT_DOCUMENT_DID_CHANGE}:
        return message
    match message.get("params"):
        case {"textDocument": dict(document), **others}:
            if document.get("version") is None:
                document["version"] = 0
            changes = others.get("contentChanges")
            for change in changes if isinstance(changes, list) else ():
                if isinstance(change, dict):
                    _repair(change)
    return message


def _repair(change: dict[str, Any]) -> None:
    if change.get("range") is None:
        change.pop("range", None)
    change.pop("rangeLength", None)  # deprecated and unused
    match change.get("range"):
        case {"start": dict(start), "end": dict(end)}:
            for position in (start, end):
                for name in ("line", "character"):
                    value = position.get(name)
                    if isinstance(value, int | float):
                        position[name] = int(min(max(value, 0), _LARGEST)) if value == value else 0
