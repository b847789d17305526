"""One evaluation from beginning to end: data, completions, times, tests, report. Top to bottom, as it happens."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from indexer.model import Cursor, Retriever
from indexer.retrieval import RetrieverName
from policy.completion.request import Request
from policy.completion.service import Completer
from policy.engine.settings import EngineSettings, default_threads
from policy.engine.supervisor import Supervisor
from policy.errors import EngineError
from policy.gating.gate import Gate, gates_of
from policy.gating.keep import carried
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

DRAWN = 120
# Nobody waits for a cancellation here: larger micro-batches read a prompt faster.
MICRO_BATCH = 256
# Workers with a thread each wait for nobody, where the threads of one worker wait for each other at every operation.
MOST_WORKERS = 4
# Completions side by side in a worker, as far as that many cells of the KV cache hold their prompts.
LANES, MOST_CELLS = 8, 16_384
RESERVED = 320  # cells of a lane beside those of its budgets: markers, and the longest generation


@dataclass(frozen=True, slots=True)
class Options:
    """What is evaluated, and how; see `cli.py` for each. `blanks` 0: all that are given, `DRAWN` that are drawn.

    Without `out` results go to the user's cache, into a folder that no other run shares.
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
    latency: int
    typing: int
    tests: tuple[str, ...]
    tests_seconds: float
    tests_isolated: bool


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it, and where: the rows, what the report says first; the file that decided, by name and SHA-256."""

    out: Path
    rows: tuple[Row, ...]
    findings: tuple[str, ...]
    model: str
    sha256: str
    gates: tuple[Gate, ...]
    interrupted: bool


async def evaluate(options: Options) -> Result:
    """Run an evaluation, or go on with it, and write its report.

    Raises `EvaluationError` where it cannot be run as asked for, and `ModelError` or `EngineUnavailable`.
    """
    data = load(options)
    retrieval = Retrieval(data.repositories, options.chunking, options.chunks, options.retriever)
    both = runner.Models(
        side_by_side(options.generator or options.model, options),
        served(options.model, options) if options.generator else None,
    )
    deciding = both.policy or both.generators[0]
    serving = served(options.generator or options.model, options)
    try:
        with StopRequest() as interrupt:
            description = await _description(options, data, both)
            out = options.out or _place(options, description)
            rows = await runner.run(
                data, both, retrieval, out, description,
                tokens=options.tokens, stopped=lambda: interrupt.asked, progress=Bar("completing"),
            )  # fmt: skip
            await both.close()
            every = rows
            rows = [row for row in every if not row.quiet]
            if not rows:
                raise EvaluationError(_nothing(record.read_problems(out), interrupt.asked))
            by_id = {row.id: row for row in rows}
            searched = [task for task in data.tasks if task.id in by_id and task.given is None]
            timed = await _times(options, out, searched, serving, retrieval, lambda: interrupt.asked)
            typing = await _typing(options, searched, serving, retrieval, lambda: interrupt.asked)
            if options.tests:
                rows = _test(options, out, data, rows, lambda: interrupt.asked)
                every = [*rows, *(row for row in every if row.quiet)]
    finally:
        await both.close()
        await serving.close()
    gates = tuple(gates_of(deciding.info.metadata if deciding.info else {}))
    writing = both.generators[0].info
    writes = writing.metadata if writing else {}
    found = figures.compute(rows, gates, timed)
    shown = showing.compute(every, gates, carried(writes))
    run = {**record.read_run(out), "typing": typing}
    problems = record.read_problems(out)
    report.write(out, rows, found, run, problems, shown)
    said = (*report.findings(found, problems), *report.shown_findings(shown))
    return Result(out, tuple(rows), said, deciding.model.name, description["model"]["sha256"], gates, interrupt.asked)


def load(options: Options) -> Data:
    """The tasks that were asked for. Raises `EvaluationError`."""
    wanted = options.blanks or DRAWN
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


def side_by_side(setting: str, options: Options) -> tuple[Supervisor, ...]:
    """Engines for many completions at once; raises `ModelError` where the setting names no model."""
    model = locate.resolve(setting)
    header = check_generator(model.path)
    default = asdict(Budgets())
    budgets = {**locate.recommended_budgets(model), **options.budgets}
    reach = sum(
        budgets.get(name, header.number(f"repoformer.budget.{name}", default[name]))
        for name in ("left", "right", "context")
    )
    cells = min(reach + max(RESERVED, options.tokens), MOST_CELLS)
    lanes = min(LANES, MOST_CELLS // cells)
    threads = options.threads or default_threads()
    workers = min(threads, MOST_WORKERS)
    settings = EngineSettings(
        threads=threads // workers, micro_batch=MICRO_BATCH, context_size=lanes * cells, sequences=lanes
    )
    names = [f"{os.getpid()} {number}" for number in range(workers)]
    return tuple(_supervisor(model, header, settings, budgets, name) for name in names)


def served(setting: str, options: Options) -> Supervisor:
    """The engine that editors get: what times are measured on; raises `ModelError`."""
    model = locate.resolve(setting)
    budgets = {**locate.recommended_budgets(model), **options.budgets}
    settings = EngineSettings(threads=options.threads)
    return _supervisor(model, check_generator(model.path), settings, budgets, f"{os.getpid()} served")


def _supervisor(
    model: locate.ModelFile, header: Header, settings: EngineSettings, budgets: Mapping[str, int], name: str
) -> Supervisor:
    layers = header.number(f"{header.architecture}.block_count", 32)
    # The worker has a working folder of its own.
    return Supervisor(model.path.resolve(), settings, budgets=budgets, layers=layers, apart=name)


def trade(rows: Sequence[Row], gates: Sequence[Gate], cost: float) -> Point:
    """The threshold that trades best for these blanks, where a retrieval costs `cost` points of edit similarity."""
    found = Table.of(rows)
    score = policies.scores(found, gates)["selective" if found.selective else "trial retrieval"]
    return policies.best_threshold(found, score, cost)


async def _description(options: Options, data: Data, both: runner.Models) -> dict[str, Any]:
    """What makes this run what it is; a run in the same folder must say the same."""
    deciding = both.policy or both.generators[0]
    await deciding.engine()
    assert deciding.info is not None
    told: dict[str, Any] = {
        "data": data.name,
        "model": record.describe_model(deciding.model, deciding.info),
        "chunking": options.chunking,
        "retriever": options.retriever,
        "chunks": options.chunks,
        "tokens": options.tokens,
        "tasks": record.fingerprint(data.tasks),
    }
    if both.policy:
        generator = both.generators[0]
        await generator.engine()
        assert generator.info is not None
        told["generator"] = record.describe_model(generator.model, generator.info)
    return told


def _place(options: Options, description: Mapping[str, Any]) -> Path:
    """Where a run goes that was given no place: found again by the same one alone, not once the code has changed."""
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
) -> list[latency.Timed]:
    """Measure, unless an earlier call of the same run has measured as many; keep them beside the results."""
    file = out / record.TIMES
    known = [latency.Timed(**each) for each in json.loads(file.read_text("utf-8"))] if file.exists() else []
    chosen = spread(tasks, options.latency) if options.latency else []
    if len({each.task for each in known}) >= len(chosen) or stopped():
        return known
    timed = await latency.measure(chosen, serving, retrieval, stopped=stopped, progress=Bar("timing"))
    file.write_text(json.dumps(latency.to_json(timed)) + "\n", "utf-8")
    return timed


async def _typing(
    options: Options, tasks: Sequence[Task], serving: Supervisor, retrieval: Retrieval, stopped: Callable[[], bool]
) -> dict[str, dict[str, float]]:
    """The simulated typist under each policy that is served."""
    chosen = spread(tasks, options.typing) if options.typing else []
    if not chosen or stopped():
        return {}
    await serving.engine()
    assert serving.info is not None
    served = latency.served_policies(gates_of(serving.info.metadata) if serving.info.selective else [])
    found: dict[str, dict[str, float]] = {}
    bar = Bar("typing")
    for number, (name, settings) in enumerate(served.items()):
        sessions = []
        for place, task in enumerate(chosen):
            if stopped():
                return found
            retriever = retrieval.snapshot(task)
            suggest = _suggest(Completer(serving, _always(retriever), settings), task)
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
            return ""  # what a person would see

    return suggest


def _always(retriever: Retriever) -> Callable[[], Retriever]:
    return lambda: retriever


def _test(options: Options, out: Path, data: Data, rows: Sequence[Row], stopped: Callable[[], bool]) -> list[Row]:
    """Run the tests for both completions of each blank that was not tested yet, and keep the results."""
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


def _nothing(problems: Sequence[Problem], interrupted: bool) -> str:
    if interrupted:
        return "interrupted before the first blank was done; the same command begins again"
    first = problems[0].reason if problems else "none"
    return f"no blank could be evaluated ({len(problems)} problems; the first: {first})"
