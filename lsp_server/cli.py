"""The command line `repoformer-lsp`. Without a command, it serves an editor on stdin and stdout.

Each command is defined in a module whose function `register` adds the command's arguments. The module is imported only
if the command or the general help is requested, because the modules for training would slow down the start of the
server.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import select
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, cast

from policy.errors import RepoformerError

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

# Maps each command to the module whose `register(subparsers)` adds its parser. A module can add the parsers of several
# commands. Each parser sets the default `run`, a function that returns the exit status.
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
Without a command, it serves an editor on stdin and stdout. Editors start it this way.

examples:
  repoformer-lsp model pull                     list the models that can be downloaded by name
  repoformer-lsp doctor                         check this machine
  repoformer-lsp complete src/app.py:12:8       complete at line 12, column 8
  repoformer-lsp search . --query "def area("   show what would be retrieved
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Return its exit status: 0, 1 for an expected failure or a closed stdout, or 130 after Ctrl-C.

    For a wrong command line, raises `SystemExit` with the status 2.
    """
    try:
        try:
            return _run(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_has_ended(sys.stdout.fileno()):
            raise
        # Python flushes stdout again when it exits, which must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _reader_has_ended(descriptor: int) -> bool:
    """Return whether the program that reads from a pipe, such as `head`, has ended. On Windows, assume that it has."""
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _run(arguments: list[str]) -> int:
    given = _with_default(arguments)
    options = _parser(given).parse_args(given)
    # Some characters, such as those of a file name, may not exist in the encoding of stdout. Escape them.
    if isinstance(sys.stdout, io.TextIOWrapper):
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
        description="Inline code completion with a model on your machine.\n"
        "It reads other files of the repository only when they are likely to help.",
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
    """Return the arguments, with the command `serve` if they do not begin with a command.

    For example, `--tcp localhost:9000` becomes `serve --tcp localhost:9000`. To run `doctor`, editors append the word
    `doctor` to the arguments that start the server. In this case, `doctor` becomes the command.
    """
    first = given[0] if given else "-"
    if not first.startswith("-") or any(word in {"-h", "--help", "--version"} for word in given):
        return given
    return ["doctor", *given[:-1]] if given[-1:] == ["doctor"] else [DEFAULT, *given]


def _command(given: Sequence[str]) -> str:
    return given[0] if given and given[0] in COMMANDS else ""


if __name__ == "__main__":
    sys.exit(main())
