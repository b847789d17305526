"""The commands `repoformer-lsp eval`, `eval diff` and `calibrate`. Slow modules are imported when a command runs."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import importlib
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, get_args

from indexer.retrieval import RetrieverName
from policy.extras import advice

from .retrieval import Style
from .task import KINDS, EvaluationError

if TYPE_CHECKING:
    from .evaluate import Options

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

DATASETS = ("repoeval", "crosscodeeval", "crosscodelongeval", "resample")
_EPILOG = """\
examples:
  repoformer-lsp eval --workspace .                                       your own code
  repoformer-lsp eval --dataset repoeval --data api_level….jsonl --repos repositories/
  repoformer-lsp eval --dataset resample --repos packages/ --blanks 1000
  repoformer-lsp eval diff before/results.csv after/results.csv
"""


def register(subparsers: Subparsers) -> None:
    """Add the commands `eval` and `calibrate` to the command line."""
    _register_eval(subparsers)
    _register_calibrate(subparsers)


def _register_eval(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "eval",
        help="measure how much retrieval helps and how well the model decides (needs the `eval` extra)",
        description="Complete blanks with and without code from other files, and report the results of each policy.\n"
        "You can interrupt the command: it then reports the results so far, and the same command continues later.\n"
        "`eval diff A B` compares the results of two runs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _data_options(parser)
    _run_options(parser)
    parser.add_argument(
        "--latency", type=int, default=20, metavar="N", help="blanks for which to measure latency (default: 20)"
    )
    parser.add_argument(
        "--typing", type=int, default=0, metavar="N", help="blanks that a simulated typist types (default: 0)"
    )
    parser.add_argument(
        "--tests", default="", metavar="COMMAND", help="test command to run in a copy of each blank's repository"
    )
    parser.add_argument(
        "--tests-seconds", type=float, default=60.0, metavar="S", help="time limit of the test command (default: 60)"
    )
    parser.add_argument(
        "--tests-without-isolation",
        action="store_true",
        help="run generated code even if this machine cannot isolate it from the network",
    )
    parser.set_defaults(run=_run_eval)
    actions = parser.add_subparsers(title="actions", metavar="diff", required=False)
    diff = actions.add_parser("diff", help="compare the results of two runs", description=_run_diff.__doc__)
    diff.add_argument("before", type=Path, metavar="A", help="a run's folder, or its results.csv")
    diff.add_argument("after", type=Path, metavar="B", help="another run's folder, or its results.csv")
    diff.add_argument("--blanks-shown", type=int, default=20, metavar="N", help="blanks to list (default: 20)")
    diff.add_argument(
        "--fail-below",
        type=float,
        metavar="POINTS",
        help="exit with status 1 if edit similarity fell by more than POINTS, or if blanks of A are missing in B",
    )
    diff.set_defaults(run=_run_diff)


def _register_calibrate(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "calibrate",
        help="find and store the best threshold for a workspace",
        description="Evaluate on the workspace's own code, or use existing results, and store the best threshold. "
        "The server uses this threshold for the workspace until `calibrate --undo` removes it.",
    )
    parser.add_argument(
        "--workspace", type=Path, default=Path(), metavar="DIR", help="workspace folder (default: the current one)"
    )
    parser.add_argument("--undo", action="store_true", help="undo the last calibration")
    parser.add_argument(
        "--cost", type=float, default=0.5, metavar="POINTS",
        help="gain in edit similarity that justifies the time of a retrieval, in points (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--least", type=int, default=40, metavar="N", help="minimum number of blanks (default: 40)")
    parser.add_argument("--blanks", type=int, default=120, metavar="N", help="blanks to draw (default: 120)")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    _run_options(parser)
    parser.set_defaults(run=_run_calibrate)


def _data_options(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    data.add_argument("--workspace", type=Path, metavar="DIR", help="evaluate on the code in this folder")
    data.add_argument("--dataset", choices=DATASETS, help="evaluate on this data set instead")
    data.add_argument("--data", type=Path, metavar="FILE", help="JSONL file of the data set")
    data.add_argument("--repos", type=Path, metavar="DIR", help="folder that contains the repositories")
    data.add_argument("--kinds", default="", metavar="K,K", help=f"only these kinds of blanks: {', '.join(KINDS)}")
    data.add_argument(
        "--blanks", type=int, default=0, metavar="N", help="maximum number of blanks (default: 120 if drawn, else all)"
    )
    data.add_argument("--seed", type=int, default=0, help="random seed")


def _run_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("run")
    group.add_argument("--out", type=Path, metavar="DIR", help="folder for results (default: in the user's cache)")
    group.add_argument(
        "--model", default="", metavar="FILE", help="the model that decides, a GGUF file (default: the server's)"
    )
    group.add_argument(
        "--generator", default="", metavar="FILE", help="the model that generates (default: the model that decides)"
    )
    group.add_argument(
        "--chunking", choices=get_args(Style), default="structure", help="how files are split into chunks"
    )
    group.add_argument(
        "--retriever", choices=get_args(RetrieverName), default="proximity", help="how chunks are ranked"
    )
    group.add_argument(
        "--chunks", type=int, default=10, metavar="N", help="maximum number of retrieved chunks (default: 10)"
    )
    group.add_argument(
        "--tokens",
        type=int,
        default=0,
        metavar="N",
        help="maximum tokens to generate (default: depends on the kind of the blank)",
    )
    for name, text in (("left", "the left context"), ("right", "the right context"), ("context", "cross-file context")):
        group.add_argument(f"--{name}", type=int, metavar="N", help=f"maximum tokens of {text} (default: the model's)")
    group.add_argument(
        "--threads", type=int, default=0, metavar="N", help="number of threads (default: depends on the machine)"
    )
    group.add_argument(
        "--torch", choices=("float32", "bfloat16"), default="",
        help="complete the blanks in PyTorch with this precision; faster on a GPU and on a processor with AMX",
    )  # fmt: skip


def _run_eval(options: argparse.Namespace) -> int:
    result = asyncio.run(_evaluate().evaluate(_options(options)))
    for sentence in result.findings:
        print(f"- {sentence}")
    print(f"\n{result.out / 'report.html'}")
    if result.interrupted:
        print("interrupted: the same command resumes the evaluation", file=sys.stderr)
        return 130
    return 0


def _run_diff(options: argparse.Namespace) -> int:
    """Compare two runs blank by blank.

    With --fail-below POINTS, exit with status 1 if edit similarity fell by more than POINTS, or if blanks of A are
    missing in B.
    """
    from . import comparing, record, table

    before, after = (path / record.RESULTS if path.is_dir() else path for path in (options.before, options.after))
    difference = comparing.compare(table.read(before), table.read(after))
    if other := record.differences(record.read_run(before.parent), record.read_run(after.parent)):
        print(f"the runs differ in: {', '.join(other)}")
    print("\n".join(comparing.report_lines(difference, options.blanks_shown)))
    if options.fail_below is None:
        return 0
    for drop in difference.drops(options.fail_below):
        print(f"{drop.figure} fell by {-drop.difference.value:.2f}, more than {options.fail_below:g}", file=sys.stderr)
    if difference.only_before:
        print(f"{len(difference.only_before)} blanks of the first run are missing", file=sys.stderr)
    return int(bool(difference.drops(options.fail_below) or difference.only_before))


def _run_calibrate(options: argparse.Namespace) -> int:
    from policy.gating import calibration

    workspace: Path = options.workspace
    if options.undo:
        undone, current = calibration.undo(workspace)
        if undone is None:
            print(f"{workspace.resolve()} was not calibrated")
            return 1
        print(
            f"removed the threshold {undone.threshold:.2f}; "
            + (f"the previous one, {current.threshold:.2f}, applies" if current else "the model's own applies")
        )
        return 0
    evaluate = _evaluate()
    options.dataset = options.data = options.repos = None
    options.kinds, options.latency, options.typing, options.tests = "", 0, 0, ""
    options.tests_seconds, options.tests_without_isolation = 60.0, False
    result = asyncio.run(evaluate.evaluate(_options(options)))
    if len(result.rows) < options.least:
        raise EvaluationError(
            f"{len(result.rows)} blanks are too few to calibrate on (--least {options.least}); the same command "
            "resumes the evaluation"
        )
    best = evaluate.best_trade_off(result.rows, result.gates, options.cost)
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    try:
        calibration.store(
            workspace,
            calibration.Calibration(best.threshold, result.model, result.sha256, len(result.rows), today),
        )
    except OSError as error:
        raise EvaluationError(f"{calibration.file()} cannot be written: {error.strerror}") from error
    print(f"threshold {best.threshold:.2f} for {workspace.resolve()} with {result.model}: edit similarity "
          f"{best.value:.2f}, {best.share:.0%} of requests retrieve ({len(result.rows)} blanks)")  # fmt: skip
    print("to undo: repoformer-lsp calibrate --undo")
    return 0


def _evaluate() -> ModuleType:
    """Return the module `evaluate`. If a package is missing, raise an error that names the extra to install."""
    try:
        return importlib.import_module("policy.evaluation.evaluate")
    except ModuleNotFoundError as missing:
        raise EvaluationError(f"{missing.name} is not installed. {advice('eval')}") from missing


def _options(options: argparse.Namespace) -> Options:
    """Validate the arguments and return the options of a run. Raises `EvaluationError`."""
    options_of = _evaluate().Options
    if (options.workspace is None) == (options.dataset is None):
        raise EvaluationError("specify either --workspace DIR or --dataset NAME (see `repoformer-lsp eval --help`)")
    if options.dataset == "resample" and options.repos is None:
        raise EvaluationError("resample needs --repos DIR, a folder with one subfolder per repository")
    if options.dataset in {"repoeval", "crosscodeeval", "crosscodelongeval"} and options.data is None:
        raise EvaluationError(f"{options.dataset} needs --data FILE")
    if options.dataset == "repoeval" and options.repos is None:
        raise EvaluationError(
            "repoeval needs --repos DIR, the folder with its repositories, to find the text after each blank"
        )
    kinds = tuple(kind for kind in options.kinds.split(",") if kind) or KINDS
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise EvaluationError(f"unknown kind {unknown[0]!r}: choose from {', '.join(KINDS)}")
    budgets = {name: value for name in ("left", "right", "context") if (value := getattr(options, name)) is not None}
    chosen: Options = options_of(
        out=options.out, workspace=options.workspace, dataset=options.dataset or "", data=options.data,
        repos=options.repos, kinds=kinds, all_kinds=not options.kinds, blanks=options.blanks, seed=options.seed,
        model=options.model, generator=options.generator, budgets=budgets, threads=options.threads, torch=options.torch,
        chunking=options.chunking, retriever=options.retriever, chunks=options.chunks, tokens=options.tokens,
        latency=options.latency, typing=options.typing, tests=tuple(_words(options.tests)),
        tests_seconds=options.tests_seconds, tests_isolated=not options.tests_without_isolation,
    )  # fmt: skip
    return chosen


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise EvaluationError(f"--tests {command!r}: {error}") from error
