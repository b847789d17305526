"""Handle the messages about workspace folders and about files that change on disk."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lsprotocol import types

from lsp_server.uris import local_path

if TYPE_CHECKING:
    from lsp_server.context import HandlerContext

log = logging.getLogger(__name__)


def roots_of(params: types.InitializeParams) -> tuple[Path, ...]:
    """Return the workspace folders that are local. Older clients send only one root, as a URI or as a path."""
    if params.workspace_folders:  # may be an empty list, although the client sends a root
        uris = [folder.uri for folder in params.workspace_folders]
    elif params.root_uri:
        uris = [params.root_uri]
    else:
        # A relative path would depend on the folder in which the client started this process.
        return (path,) if params.root_path and (path := Path(params.root_path)).is_absolute() else ()
    return tuple(dict.fromkeys(_paths(uris)))


def folders_changed(ls: HandlerContext, params: types.DidChangeWorkspaceFoldersParams) -> None:
    """Handle `workspace/didChangeWorkspaceFolders`."""
    removed = set(_paths(folder.uri for folder in params.event.removed))
    kept = [root for root in ls.session.roots if root not in removed]
    added = _paths(folder.uri for folder in params.event.added)  # may also be a removed folder, with another name
    ls.session.set_roots(tuple(dict.fromkeys((*kept, *added))))


def files_changed(ls: HandlerContext, params: types.DidChangeWatchedFilesParams) -> None:
    """Handle `workspace/didChangeWatchedFiles`: the index checks these files.

    The server does not ask clients to watch files. The index watches them itself, because clients cannot exclude
    ignored folders such as `node_modules`, and some clients report only files that they save.
    """
    ls.session.touch(_paths(change.uri for change in params.changes))


def _paths(uris: Iterable[str]) -> tuple[Path, ...]:
    """Return the paths of the URIs that are local. Others, such as those of a virtual file system, are logged."""
    paths = []
    for uri in uris:
        if path := local_path(uri):
            paths.append(path)
        else:
            log.info("not indexed, because it is not a local file or folder: %s", uri)
    return tuple(paths)
