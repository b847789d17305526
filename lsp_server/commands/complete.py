"""`repoformer-lsp complete`: make one completion and print it. This uses the same core as the server."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from indexer.languages import language_of
from indexer.model import Cursor, shown_path
from indexer.reading import text_of
from indexer.rules import Reason
from lsp_server.report import completion_report, to_json
from lsp_server.settings import DEFAULTS, read_settings
from lsp_server.text import Document
from policy.errors import RepoformerError
from policy.gating.decision import Policy

if TYPE_CHECKING:
    from indexer.workspace import Progress
    from lsp_server.cli import Subparsers
    from policy.completion.request import Completion
    from policy.engine.supervisor import EngineState


class UsageError(RepoformerError):
    """The command cannot be performed, for example because a file or a place in it does not exist."""


def register(subparsers: Subparsers) -> None:
    """Add the command's arguments."""
    parser = subparsers.add_parser(
        "complete",
        help="complete at a place in a file",
        description="Complete at a place in a file, and print how the completion was made. Lines and columns count "
        "from 1. Columns are characters. The model also reads the text after the place.",
    )
    parser.add_argument("place", metavar="FILE:LINE:COLUMN", type=_place)
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="workspace folder (default: the repository that contains FILE)"
    )
    parser.add_argument(
        "--policy", choices=get_args(Policy), default=DEFAULTS.policy, help="when to retrieve (default: %(default)s)"
    )
    parser.add_argument("--model", default="", help="GGUF file or name of a downloaded model (default: `auto`)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print one completion."""
    completion = asyncio.run(_complete(options))
    if options.json:
        print(to_json(completion_report(completion)))
    else:
        _print(completion)
    return 0


async def _complete(options: argparse.Namespace) -> Completion:
    from lsp_server.core import Core
    from policy.completion.request import Request

    path, line, column = options.place
    cursor = _cursor(path, line, column)
    settings, _ = read_settings({"policy": options.policy, "model": options.model})
    core = Core(_Quiet(), settings, watch=False)
    try:
        core.start([options.root or root_of(path)])
        # Wait until the model and the index are ready, so that the times are those of a running server.
        await asyncio.gather(core.warm_up(), asyncio.to_thread(core.wait_indexed))
        return await core.complete(Request(cursor, path.as_uri(), "invoked"))
    finally:
        await core.close()


def _cursor(path: Path, line: int, column: int) -> Cursor:
    try:
        text = text_of(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if isinstance(text, Reason):
        raise UsageError(f"{path} is a binary file ({text.detail})")
    document = Document.of(path.as_uri(), text)
    place = document.locate((line - 1, column - 1), "utf-32")
    if place.note or place.column != column - 1:
        raise UsageError(f"there is no line {line}, column {column} in {path}, which has {len(document.lines)} lines")
    language = language_of(path, text=text)
    return Cursor(str(path), *document.split_at(place), language.id if language else "")


def root_of(path: Path) -> Path:
    """Return the root of the repository that contains the file `path`, or the file's folder if there is none."""
    for folder in path.parents:
        if (folder / ".git").exists():
            return folder
    return path.parent


def _place(text: str) -> tuple[Path, int, int]:
    name, line, column = ["", "", "", *text.rsplit(":", 2)][-3:]
    if not (name and line.isdigit() and column.isdigit() and int(line) and int(column)):
        raise argparse.ArgumentTypeError(f"{text!r} is not FILE:LINE:COLUMN, both counted from 1")
    return Path(name).absolute(), int(line), int(column)


def _print(completion: Completion) -> None:
    print(completion.text or f"(nothing: {completion.reason})")
    decision = completion.decision
    if decision:
        verb = "retrieved" if decision.retrieve else "did not retrieve"
        compared = f"probability {decision.p_retrieve:.3f}, threshold {decision.threshold:.3f}"
        print(f"\n{verb}: {compared} (gate: {decision.source})", file=sys.stderr)
    if estimate := completion.estimate:
        verb = "shown" if estimate.shown else "shown only on request"
        compared = f"{estimate.p:.3f}, threshold {estimate.threshold:.3f}"
        print(f"estimated probability that you keep it: {compared} ({verb})", file=sys.stderr)
    for hit in completion.hits:
        chunk = hit.chunk
        print(f"  {shown_path(chunk.path)}:{chunk.start_line}-{chunk.end_line}  {hit.score:.3f}", file=sys.stderr)
    print("  ".join(f"{stage} {ms:.0f} ms" for stage, ms in completion.timings_ms.items()), file=sys.stderr)


class _Quiet:
    """An observer of the core that prints only problems and notices."""

    def engine_changed(self, state: EngineState, model: str, problem: str) -> None:
        """Do nothing, because the command waits for the engine."""

    def indexing(self, progress: Progress) -> None:
        """Do nothing, because the command waits for the index."""

    def generator_changed(self, problem: str) -> None:
        """Print the problem to standard error."""
        if problem:
            print(problem, file=sys.stderr)

    def notice(self, text: str) -> None:
        """Print the message to standard error."""
        print(text, file=sys.stderr)
