"""Run one evaluation from beginning to end: data, completions, latency, tests, report."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from indexer.model import Cursor, Retriever
from indexer.retrieval import RetrieverName
from policy.completion.request import Request
from policy.completion.service import Completer
from policy.engine.settings import EngineSettings, default_threads
from policy.engine.supervisor import Supervisor
from policy.errors import EngineError
from policy.extras import advice
from policy.gating.gate import Gate, selectable_gates
from policy.gating.keep import keep_from_metadata
from policy.models import locate
from policy.models.gguf import Header, check_generator
from policy.prompting.prompt import Budgets
from policy.training.running import StopRequest as StopRequest

from . import (
    crosscode,
    figures,
    latency,
    policies,
    record,
    repoeval,
    report,
    resample,
    runner,
    showing,
    table,
    typist,
    unittests,
)
from .policies import Point
from .progress import Bar
from .retrieval import Retrieval, Style
from .table import Row, Table
from .task import Data, EvaluationError, Problem, Task, TaskKind, spread

if TYPE_CHECKING:
    from policy.training.compute import Precision

DEFAULT_BLANKS = 120
# Tokens that llama.cpp evaluates at a time. Serving uses fewer, because the tokens of finished micro-batches stay in
# the cache when a request is cancelled. Evaluation cancels nothing, and reads a prompt faster with larger
# micro-batches.
MICRO_BATCH = 256
# Several workers with few threads are faster than one worker with many threads, because the threads of a worker wait
# for each other at every operation.
MAX_WORKERS = 4
# Maximum number of completions that a worker generates at the same time, and maximum number of cells in its KV cache,
# which has to hold the prompts of all these completions.
LANES, MAX_CELLS = 8, 16_384
RESERVED = 320  # cells of each completion for the markers and the generated tokens, in addition to the budgets


@dataclass(frozen=True, slots=True)
class Options:
    """What to evaluate, and how. `cli.py` describes each option.

    `blanks` 0 means all blanks of a data set, or `DEFAULT_BLANKS` if blanks are drawn. `torch` is the precision of the
    completions in torch, or "" to use llama.cpp. If `out` is None, the results are written to a folder in the user's
    cache, a different one for each run.
    """

    out: Path | None
    workspace: Path | None
    dataset: str
    data: Path | None
    repos: Path | None
    kinds: tuple[TaskKind, ...]
    all_kinds: bool
    blanks: int
    seed: int
    model: str
    generator: str
    chunking: Style
    retriever: RetrieverName
    chunks: int
    tokens: int
    budgets: Mapping[str, int]
    threads: int
    torch: str
    latency: int
    typing: int
    tests: tuple[str, ...]
    tests_seconds: float
    tests_isolated: bool


@dataclass(frozen=True, slots=True)
class Result:
    """The results of a run: its folder, its rows without quiet places, and its findings as sentences.

    `model`, `sha256` and `gates` are the file name, the SHA-256 and the gates of the model that decides.
    """

    out: Path
    rows: tuple[Row, ...]
    findings: tuple[str, ...]
    model: str
    sha256: str
    gates: tuple[Gate, ...]
    interrupted: bool


async def evaluate(options: Options) -> Result:
    """Run or resume an evaluation and write its report.

    Raises `EvaluationError` if the evaluation cannot run with these options, `ModelError` if a model cannot be used,
    and `EngineUnavailable` if an engine cannot be started.
    """
    data = load(options)
    retrieval = Retrieval(data.repositories, options.chunking, options.chunks, options.retriever)
    models = runner.Models(
        batch_engines(options.generator or options.model, options),
        serving_engine(options.model, options) if options.generator else None,
    )
    deciding = models.policy or models.generators[0]
    serving = serving_engine(options.generator or options.model, options)
    try:
        with StopRequest() as interrupt:
            description = await _description(options, data, models)
            out = options.out or _default_folder(options, description)
            rows = await runner.run(
                data, models, retrieval, out, description,
                tokens=options.tokens, stopped=lambda: interrupt.requested, progress=Bar("completing"),
            )  # fmt: skip
            await models.close()
            every = rows
            rows = [row for row in every if not row.quiet]
            if not rows:
                raise EvaluationError(_no_results_message(record.read_problems(out), interrupt.requested))
            by_id = {row.id: row for row in rows}
            searched = [task for task in data.tasks if task.id in by_id and task.given is None]
            timed = await _times(options, out, searched, serving, retrieval, lambda: interrupt.requested)
            typing = await _typing(options, searched, serving, retrieval, lambda: interrupt.requested)
            if options.tests:
                rows = _test(options, out, data, rows, lambda: interrupt.requested)
                every = [*rows, *(row for row in every if row.quiet)]
    finally:
        await models.close()
        await serving.close()
    gates = tuple(selectable_gates(deciding.info.metadata, decides=deciding.info.selective) if deciding.info else ())
    generating = models.generators[0].info
    found = figures.compute(rows, gates, timed)
    shown = showing.compute(every, gates, keep_from_metadata(generating.metadata if generating else {}))
    run = {**record.read_run(out), "typing": typing}
    problems = record.read_problems(out)
    report.write(out, rows, found, run, problems, shown)
    sentences = (*report.findings(found, problems), *report.shown_findings(shown))
    return Result(
        out, tuple(rows), sentences, deciding.model.name, description["model"]["sha256"], gates, interrupt.requested
    )


def load(options: Options) -> Data:
    """Load the tasks that the options select. Raises `EvaluationError`."""
    wanted = options.blanks or DEFAULT_BLANKS
    if options.workspace is not None:
        return resample.workspace(options.workspace, wanted, options.kinds, options.seed)
    if options.dataset == "resample":
        assert options.repos is not None
        return resample.load(options.repos, wanted, options.kinds, options.seed)
    assert options.data is not None
    if options.dataset == "repoeval":
        assert options.repos is not None
        data = repoeval.load(options.data, options.repos)
    else:
        data = crosscode.load(options.data, options.repos, crosscode.kind_by_name(options.data))
    tasks = [task for task in data.tasks if options.all_kinds or task.kind in options.kinds]
    return replace(data, tasks=tuple(spread(tasks, options.blanks)))


def batch_engines(setting: str, options: Options) -> tuple[runner.Generator, ...]:
    """Create engines for many concurrent completions.

    Raises `ModelError` if `setting` names no model that can be used, `EvaluationError` if torch is needed and not
    installed, and `TrainingError` if the model's architecture is not supported in torch.
    """
    model = locate.resolve(setting)
    header = check_generator(model.path)
    budgets = {**asdict(locate.budgets_of(model.path, header)), **options.budgets}
    cells = min(Budgets(**budgets).tokens + max(RESERVED, options.tokens), MAX_CELLS)
    if options.torch:
        return (_torch_engine(model.path.resolve(), budgets, cells, options),)
    lanes = min(LANES, MAX_CELLS // cells)
    threads = options.threads or default_threads()
    workers = min(threads, MAX_WORKERS)
    settings = EngineSettings(
        threads=threads // workers, micro_batch=MICRO_BATCH, context_size=lanes * cells, sequences=lanes
    )
    names = [f"{os.getpid()} {number}" for number in range(workers)]
    return tuple(_supervisor(model, header, settings, budgets, name) for name in names)


def _torch_engine(model: Path, budgets: Mapping[str, int], cells: int, options: Options) -> runner.Generator:
    try:
        import torch

        from policy.training.compute import Compute

        from .torch_engine import TorchEngine
    except ModuleNotFoundError as missing:
        raise EvaluationError(f"{missing.name} is not installed. {advice('train')}") from missing
    torch.set_num_threads(options.threads or default_threads())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return TorchEngine(model, budgets, cells, Compute(device, cast("Precision", options.torch)))


def serving_engine(setting: str, options: Options) -> Supervisor:
    """Create an engine with the same settings as for an editor, to measure latency. Raises `ModelError`."""
    model = locate.resolve(setting)
    header = check_generator(model.path)
    budgets = {**asdict(locate.budgets_of(model.path, header)), **options.budgets}
    settings = EngineSettings(threads=options.threads)
    return _supervisor(model, header, settings, budgets, f"{os.getpid()} served")


def _supervisor(
    model: locate.ModelFile, header: Header, settings: EngineSettings, budgets: Mapping[str, int], name: str
) -> Supervisor:
    layers = header.number(f"{header.architecture}.block_count", 32)
    # The path is absolute because the worker has another current directory.
    return Supervisor(model.path.resolve(), settings, budgets=budgets, layers=layers, apart=name)


def best_trade_off(rows: Sequence[Row], gates: Sequence[Gate], cost: float) -> Point:
    """Return the best threshold for these blanks, if each retrieval costs `cost` points of edit similarity.

    The threshold applies to the score from which the server decides: the first score of `policies.scores`.
    """
    found = Table.of(rows)
    score = next(iter(policies.scores(found, gates).values()))
    return policies.best_threshold(found, score, cost)


async def _description(options: Options, data: Data, models: runner.Models) -> dict[str, Any]:
    """Return the description of the run. Only a run with the same description can be resumed."""
    deciding = models.policy or models.generators[0]
    await deciding.engine()
    assert deciding.info is not None
    description: dict[str, Any] = {
        "data": data.name,
        "model": record.describe_model(deciding.model, deciding.info),
        "chunking": options.chunking,
        "retriever": options.retriever,
        "chunks": options.chunks,
        "tokens": options.tokens,
        "tasks": record.fingerprint(data.tasks),
    }
    if options.torch:
        description["torch"] = options.torch
    if models.policy:
        generator = models.generators[0]
        await generator.engine()
        assert generator.info is not None
        description["generator"] = record.describe_model(generator.model, generator.info)
    return description


def _default_folder(options: Options, description: Mapping[str, Any]) -> Path:
    """Return the folder for a run without `--out`, which depends on the paths of the data and on `description`."""
    name = f"workspace-{options.workspace.resolve().name}" if options.workspace else options.dataset
    sources = [str(path.resolve()) for path in (options.workspace, options.data, options.repos) if path]
    return record.folder(name, {**description, "sources": sources})


async def _times(
    options: Options,
    out: Path,
    tasks: Sequence[Task],
    serving: Supervisor,
    retrieval: Retrieval,
    stopped: Callable[[], bool],
) -> list[latency.TimedRequest]:
    """Measure latency, unless the times of this run are already stored. Store the times next to the results."""
    file = out / record.TIMES
    known = [latency.TimedRequest(**each) for each in json.loads(file.read_text("utf-8"))] if file.exists() else []
    chosen = spread(tasks, options.latency) if options.latency else []
    if len({each.task for each in known}) >= len(chosen) or stopped():
        return known
    timed = await latency.measure(chosen, serving, retrieval, stopped=stopped, progress=Bar("timing"))
    file.write_text(json.dumps(latency.to_json(timed)) + "\n", "utf-8")
    return timed


async def _typing(
    options: Options, tasks: Sequence[Task], serving: Supervisor, retrieval: Retrieval, stopped: Callable[[], bool]
) -> dict[str, dict[str, float]]:
    """Run the simulated typist under each policy that can be served.

    For each policy, return the number of accepted characters per request (`per_request`), the share of all new
    characters that are accepted and not typed (`accepted`), and the share of the requests with a suggestion (`shown`).
    """
    chosen = spread(tasks, options.typing) if options.typing else []
    if not chosen or stopped():
        return {}
    await serving.engine()
    assert serving.info is not None
    served = latency.served_policies(selectable_gates(serving.info.metadata, decides=serving.info.selective))
    found: dict[str, dict[str, float]] = {}
    bar = Bar("typing")
    for number, (name, settings) in enumerate(served.items()):
        sessions = []
        for place, task in enumerate(chosen):
            if stopped():
                return found
            retriever = retrieval.snapshot(task)
            suggest = _suggest(Completer(serving, _constant(retriever), settings), task)
            sessions.append(await typist.type_out(task.cursor, task.truth, suggest))
            bar(number * len(chosen) + place + 1, len(served) * len(chosen))
        requests = sum(session.requests for session in sessions)
        found[name] = {
            "per_request": sum(session.accepted for session in sessions) / requests,
            "accepted": sum(session.accepted for session in sessions) / sum(session.wanted for session in sessions),
            "shown": sum(session.shown for session in sessions) / requests,
        }
    return found


def _suggest(completer: Completer, task: Task) -> Callable[[Cursor], Awaitable[str]]:
    async def suggest(cursor: Cursor) -> str:
        try:
            return (await completer.complete(Request(cursor, task.id))).text
        except EngineError:
            return ""  # an editor would show no suggestion

    return suggest


def _constant(retriever: Retriever) -> Callable[[], Retriever]:
    return lambda: retriever


def _test(options: Options, out: Path, data: Data, rows: Sequence[Row], stopped: Callable[[], bool]) -> list[Row]:
    """Run the unit tests for both completions of each blank without test results, and store the results."""
    tasks = {task.id: task for task in data.tasks}
    limits = unittests.Limits(options.tests_seconds, isolated=options.tests_isolated)
    tested: list[Row] = []
    bar = Bar("testing")
    for number, row in enumerate(rows):
        if not row.tested and not stopped():
            task = tasks[row.id]
            root = Path(data.repositories[task.repository].root)

            def outcome(text: str, task: Task = task, root: Path = root) -> str:
                whole = task.cursor.prefix + text + task.cursor.suffix
                return unittests.run(root, task.path, whole, options.tests, limits)

            without = outcome(row.without)
            with_ = without if row.with_ == row.without else outcome(row.with_)
            row = replace(row, tests_without=without, tests_with=with_)
        tested.append(row)
        bar(number + 1, len(rows))
    quiet = [row for row in table.read(out / record.RESULTS) if row.quiet]
    table.rewrite(out / record.RESULTS, [*tested, *quiet])
    return tested


def _no_results_message(problems: Sequence[Problem], interrupted: bool) -> str:
    if interrupted:
        return "interrupted before the first blank was completed; the same command starts again"
    first = problems[0].reason if problems else "none"
    return f"no blank could be evaluated ({len(problems)} problems; the first: {first})"
