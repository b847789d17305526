"""`repoformer-lsp learned`: show or reset what the server has learned from the suggestions in a workspace."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lsp_server.commands.complete import UsageError
from policy.gating import learned

if TYPE_CHECKING:
    from lsp_server.cli import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command's arguments."""
    parser = subparsers.add_parser(
        "learned",
        help="show or reset what the server has learned from accepted and dismissed suggestions",
        description="Show how many suggestions in a workspace were accepted, typed over and dismissed, and how this "
        "changes the threshold for showing a suggestion. Only counts are stored, on this machine.",
    )
    parser.add_argument("path", metavar="PATH", type=Path, nargs="?", default=Path(), help="the workspace folder")
    parser.add_argument("--reset", action="store_true", help="delete the counts of this workspace")
    parser.add_argument("--all", action="store_true", help="with --reset: delete the counts of all workspaces")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the counts of a workspace, or delete them."""
    if options.reset:
        try:
            gone = learned.reset(None if options.all else options.path)
        except OSError as error:
            raise UsageError(f"{learned.file()} cannot be written: {error.strerror}") from error
        print(f"deleted the counts of {gone} workspace{'' if gone == 1 else 's'}")
        return 0
    counts = learned.counts_of(options.path)
    if options.json:
        print(json.dumps({**asdict(counts), "shift": counts.shift}, indent=2))
        return 0
    print(
        f"{options.path.resolve()}: {counts.accepted:.0f} accepted ({counts.expected:.0f} expected), "
        f"{counts.typed_over:.0f} typed over, {counts.dismissed:.0f} dismissed"
    )
    meaning = "(positive: fewer suggestions are shown)"
    print(f"the threshold for showing a suggestion is shifted by {counts.shift:+.2f} log-odds {meaning}")
    return 0
