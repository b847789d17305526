"""The URIs that name files on this machine, and how file names are shown to the user."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsprotocol import types

from indexer.model import shown_path
from lsp_server.features.workspace import roots_of
from lsp_server.protocol import plain_converter
from lsp_server.uris import local_path

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX file names")


@posix
@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///a/b.py", "/a/b.py"),
        ("file:///a%20b/%23c;d.py", "/a b/#c;d.py"),
        ("file://localhost/a.py", "/a.py"),
        ("file:///caf%E9.py", os.fsdecode(b"/caf\xe9.py")),
        ("file:///caf%C3%A9.py", "/café.py"),
        ("FILE:/a", "/a"),
        ("file:///C%3A/a", "c:/a"),
    ],
)
def test_files(uri: str, path: str) -> None:
    assert local_path(uri) == Path(path)


@pytest.mark.parametrize(
    "uri",
    ["", "file:", "file://[", "file://h\u2100/x", "file:///a%00b", "file:///\ud800", "untitled:1", "http://x/y",
     "vscode-notebook-cell:/n.ipynb#W0", "\0", "::"],
)  # fmt: skip
def test_what_is_no_file(uri: str) -> None:
    assert local_path(uri) is None


@given(st.text())
def test_any_uri_is_one_or_the_other(uri: str) -> None:
    local_path(uri)
    local_path(f"file:///{uri}")


@posix
@given(st.binary(min_size=1).filter(lambda name: not {0, 0x2F} & set(name) and name not in {b".", b".."}))
def test_every_name_of_a_file_comes_back_and_can_be_shown(name: bytes) -> None:
    path = Path(os.fsdecode(b"/" + name))
    assert local_path(path.as_uri()) == path
    shown_path(str(path)).encode()


@posix
@pytest.mark.parametrize(
    ("sent", "roots"),
    [
        ({"workspaceFolders": [], "rootUri": "file:///a"}, ("/a",)),
        ({"workspaceFolders": None, "rootUri": None, "rootPath": "/a"}, ("/a",)),
        ({"workspaceFolders": ["file:///b", "file:///b/", "file:///c"], "rootUri": "file:///a"}, ("/b", "/c")),
        ({"workspaceFolders": ["vscode-vfs://github/x/y"], "rootUri": "file:///a"}, ()),
        ({"rootUri": "", "rootPath": "/a"}, ("/a",)),
        ({"rootUri": None, "rootPath": "relative/folder"}, ()),
        ({"rootUri": None, "rootPath": ""}, ()),
    ],
)
def test_the_workspace_folders_of_each_kind_of_client(sent: dict[str, Any], roots: tuple[str, ...]) -> None:
    folders = [{"uri": uri, "name": "x"} for uri in sent.get("workspaceFolders") or ()]
    named = {**sent, "workspaceFolders": folders} if "workspaceFolders" in sent else sent
    params = plain_converter().structure({"processId": None, "capabilities": {}, **named}, types.InitializeParams)
    assert roots_of(params) == tuple(map(Path, roots))
