"""`repoformer-lsp`: one table of commands. Without one it serves an editor on stdin and stdout.

A command is a module with `register`, which adds its arguments, and is imported only when it is asked for (or when
help is): what trains a model must not slow down an editor's start.
"""

from __future__ import annotations

import argparse
import importlib
import io
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, cast

from policy.errors import RepoformerError

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

# Command → module whose `register(subparsers)` adds its parser (and those of its other commands). A parser sets `run`,
# which returns the exit status.
COMMANDS = {
    "serve": "lsp_server.commands.serve",
    "complete": "lsp_server.commands.complete",
    "index": "lsp_server.commands.index",
    "search": "lsp_server.commands.search",
    "model": "lsp_server.commands.model",
    "learned": "lsp_server.commands.learned",
    "doctor": "lsp_server.commands.doctor",
    "eval": "policy.evaluation.cli",
    "calibrate": "policy.evaluation.cli",
    "train": "policy.training.cli",
}
DEFAULT = "serve"

_EPILOG = """\
Without a command it serves an editor on stdin and stdout; editors start it that way.

examples:
  repoformer-lsp model pull                     list the models that can be had by name
  repoformer-lsp doctor                         check this machine
  repoformer-lsp complete src/app.py:12:8       complete at line 12, column 8
  repoformer-lsp search . --query "def area("   see what would be retrieved
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 for a failure that was explained, 2 for a wrong command line."""
    given = _with_default(list(sys.argv[1:] if arguments is None else arguments))
    options = _parser(given).parse_args(given)
    if isinstance(sys.stdout, io.TextIOWrapper):  # what its encoding lacks, a file's name for one, is escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    run = cast("Callable[[argparse.Namespace], int]", options.run)
    try:
        return run(options)
    except RepoformerError as error:
        print(f"repoformer-lsp: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="repoformer-lsp",
        description="Inline code completion by a model on your machine, which reads other files of the repository "
        "only when it says that they would help.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('repoformer-lsp')}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    asked = _command(given)
    for module in dict.fromkeys([COMMANDS[asked]] if asked else COMMANDS.values()):
        importlib.import_module(module).register(subparsers)
    return parser


def _with_default(given: list[str]) -> list[str]:
    """Serving is meant where no command is named, as in `repoformer-lsp --tcp localhost:9000`.

    Editors put `doctor` behind what starts the server.
    """
    first = given[0] if given else "-"
    if not first.startswith("-") or any(word in {"-h", "--help", "--version"} for word in given):
        return given
    return ["doctor", *given[:-1]] if given[-1:] == ["doctor"] else [DEFAULT, *given]


def _command(given: Sequence[str]) -> str:
    return given[0] if given and given[0] in COMMANDS else ""


if __name__ == "__main__":
    sys.exit(main())
