"""Read the messages between an editor and its server, which `wiretap.py` has recorded."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lsprotocol import types
from pygls.protocol import default_converter

from lsp_server.features.documents import _change
from lsp_server.text import Document, Encoding

Message = dict[str, Any]
SERVER = Path(sys.executable).with_name("repoformer-lsp")
METHOD = "textDocument/inlineCompletion"


@dataclass(frozen=True)
class Wire:
    """The recorded messages of one server.

    `record` is the file of the messages. The editor must start `command`, which starts the server and records.
    """

    record: Path
    model: Path | None

    @property
    def command(self) -> list[str]:
        model = ["--model", str(self.model)] if self.model else []
        tap = Path(__file__).with_name("wiretap.py")
        return [sys.executable, str(tap), str(self.record), "--", str(SERVER), *model]

    def script(self, path: Path, env: Mapping[str, str] = MappingProxyType({})) -> Path:
        """Write a shell script that runs `command`, and return its path.

        With arguments, such as `doctor`, the script runs `repoformer-lsp` with them instead, without a record. `env`
        replaces the environment variables of the editor unless it is empty.
        """
        runs = shlex.join(["exec", *(["env", "-i", *map("=".join, env.items())] if env else [])])
        direct = f'[ $# -gt 0 ] && {runs} {shlex.quote(str(SERVER))} "$@"'
        path.write_text(f"#!/bin/sh\n{direct}\n{runs} {shlex.join(self.command)}\n")
        path.chmod(0o755)
        return path

    def messages(self, who: str = "") -> list[tuple[float, Message]]:
        """Return the messages until now, each with its time in seconds since 1970.

        With `who`, return only those that the "editor" or the "server" sent.
        """
        if not self.record.exists():
            return []
        rows = []
        for line in self.record.read_text("utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:  # the last line is not written completely yet
                break
        return [(when, message) for when, sender, message in rows if who in ("", sender)]

    def sent(self, method: str) -> list[Any]:
        """Return the parameters of all messages with this method that the editor sent, in order."""
        return [message.get("params") for _, message in self.messages("editor") if message.get("method") == method]

    def received(self, method: str) -> list[Any]:
        """Return the parameters of all messages with this method that the server sent, in order."""
        return [message.get("params") for _, message in self.messages("server") if message.get("method") == method]

    def asked(self) -> list[Any]:
        """Return the parameters of all requests for inline completions, in order."""
        return self.sent(METHOD)

    def answers(self, kind: int | None = None) -> list[list[Message]]:
        """Return the items of each answer to a request for inline completions, in order.

        With `kind`, return only answers to requests of this trigger kind: 1 (explicit) or 2 (automatic).
        """
        sent = (m for _, m in self.messages("editor") if m.get("method") == METHOD)
        asked = {m["id"] for m in sent if kind in (None, m["params"]["context"]["triggerKind"])}
        answers = [m for _, m in self.messages("server") if "method" not in m and m.get("id") in asked]
        return [answer["result"]["items"] for answer in answers if answer.get("result")]

    def answered(self, character: int) -> bool:
        """Return whether the last request for inline completions is for this character of a line and is answered."""
        asked = [message for _, message in self.messages("editor") if message.get("method") == METHOD]
        if not asked or asked[-1]["params"]["position"]["character"] != character:
            return False
        return any("method" not in m and m.get("id") == asked[-1]["id"] for _, m in self.messages("server"))

    def front(self) -> str | None:
        """Return the URI of the document that last got the focus (`textDocument/didFocus`), or None."""
        told = self.sent("textDocument/didFocus")
        return told[-1]["textDocument"]["uri"] if told else None

    def encoding(self) -> Encoding:
        """Return the position encoding that editor and server agreed on."""
        for _, message in self.messages("server"):
            if "positionEncoding" in ((message.get("result") or {}).get("capabilities") or {}):
                agreed: Encoding = message["result"]["capabilities"]["positionEncoding"]
                return agreed
        raise AssertionError("no server has answered `initialize`")

    def text(self, file: Path) -> str:
        """Return the server's copy of an open file.

        It is computed by the server's code, from the text of `didOpen` and the changes of each `didChange`.
        """
        converter = default_converter()  # type: ignore[no-untyped-call]
        document = None
        for _, message in self.messages("editor"):
            params = message.get("params") or {}
            if not isinstance(params, dict) or params.get("textDocument", {}).get("uri") != file.as_uri():
                continue
            if message["method"] == "textDocument/didOpen":
                item = params["textDocument"]
                document = Document.of(item["uri"], item["text"])
            elif message["method"] == "textDocument/didChange":
                assert document is not None
                change = converter.structure(params, types.DidChangeTextDocumentParams)
                version = change.text_document.version
                document = document.apply(map(_change, change.content_changes), version, self.encoding())
        assert document is not None, f"{file.name} was never opened"
        return document.text

    def summary(self, last: int = 40) -> str:
        """Return the `last` messages, shortened, to explain why a test failed. The server's log is part of them."""
        rows = self.messages()[-last:]
        return "\n".join(f"{when - rows[0][0]:8.2f} s  {json.dumps(message)[:300]}" for when, message in rows)

    def kill(self) -> None:
        """Kill the server with SIGKILL, as the system does when memory runs out."""
        os.kill(int(self.record.with_suffix(".pid").read_text()), signal.SIGKILL)
