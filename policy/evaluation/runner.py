"""Complete every task without and with cross-file context, many at a time, and write each result immediately.

The two completions of a task are adjacent in the list of trials, so that an engine can reuse the common part of their
prompts. An engine generates several texts at the same time: each evaluation adds one token to each text.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from indexer.model import Hit
from policy.completion.shape import Shaper
from policy.engine.messages import ModelInfo, Reading, Trial, Tried
from policy.engine.supervisor import Supervisor
from policy.errors import ModelError, RepoformerError
from policy.gating.evidence import evidence

from . import record, table
from .cutting import cut, stop_for
from .retrieval import Retrieval
from .shown import shown_of
from .similarity import score
from .table import Row
from .task import Data, Problem, Task

GROUP = 48  # maximum number of blanks in one call of an engine; a call sends the retrieved chunks of all its blanks


class BatchEngine(Protocol):
    """Runs many completions concurrently: `policy.engine.client.Engine`, or the `TorchEngine` of this package."""

    def try_all(self, trials: Sequence[Trial]) -> AsyncGenerator[tuple[int, Tried]]:
        """Yield the index in `trials` and the result of each trial, in the order in which they end."""
        ...


class Generator(Protocol):
    """A model that completes the blanks. `info` may be None until `engine` has returned."""

    @property
    def model(self) -> Path:
        """The GGUF file."""
        ...

    @property
    def info(self) -> ModelInfo | None:
        """The layout, budgets and metadata of the model."""
        ...

    async def engine(self) -> BatchEngine:
        """Return the engine with the model loaded."""
        ...

    async def close(self) -> None:
        """Stop the engine."""
        ...


@dataclass(frozen=True, slots=True)
class Models:
    """The models of a run.

    `generators` are engines with the same model, each of which completes a part of the blanks. `policy` is the engine
    of a separate model that decides, or None if the generating model decides.
    """

    generators: tuple[Generator, ...]
    policy: Supervisor | None = None

    async def close(self) -> None:
        """Stop all engines."""
        every = [*self.generators, *([self.policy] if self.policy else [])]
        await asyncio.gather(*(each.close() for each in every))


async def run(
    data: Data,
    models: Models,
    retrieval: Retrieval,
    out: Path,
    description: Mapping[str, Any],
    *,
    tokens: int = 0,
    stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Evaluate the tasks that `out` does not contain yet. Return all rows in the order of the tasks.

    `stopped` is checked after each task. `progress` gets the number of finished tasks and the number of all tasks. A
    task for which the engine fails becomes a problem. Raises `EvaluationError` if `out` belongs to another run, and
    `ModelError` or `EngineUnavailable` if a model cannot be used.
    """
    done = {row.id: row for row in record.begin(out, description)}
    problems = list(data.problems)
    todo = [task for task in data.tasks if task.id not in done]
    remaining = len(todo)
    progress(len(data.tasks) - remaining, len(data.tasks))
    size = min(GROUP, -(-remaining // len(models.generators)) or 1)
    groups = iter([todo[start : start + size] for start in range(0, remaining, size)])
    with (out / record.RESULTS).open("a", encoding="utf-8") as file:

        async def work(generator: Generator) -> None:
            nonlocal remaining
            for group in groups:
                rows = _rows(group, models.policy, generator, retrieval, tokens)
                async with contextlib.aclosing(rows):
                    while not stopped() and (row := await anext(rows, None)):
                        remaining -= 1
                        if isinstance(row, Problem):
                            problems.append(row)
                        else:
                            done[row.id] = row
                            file.write(table.to_line(row))
                            file.flush()
                        progress(len(data.tasks) - remaining, len(data.tasks))

        await asyncio.gather(*map(work, models.generators))
    record.write_problems(out, problems)
    return [done[task.id] for task in data.tasks if task.id in done]


async def _rows(
    group: Sequence[Task], policy: Supervisor | None, generator: Generator, retrieval: Retrieval, tokens: int
) -> AsyncGenerator[Row | Problem]:
    """Yield a row or a problem for each finished task. If the engine fails, retry the remaining tasks one by one."""
    found = {task.id: retrieval.find(task) for task in group}
    remaining = {task.id: task for task in group}
    try:
        async for task, plain, retrieved in _pairs(group, found, generator, tokens):
            reading = await (await policy.engine()).read("policy", task.cursor) if policy else plain.reading
            assert reading is not None
            del remaining[task.id]
            yield _make_row(task, *found[task.id], reading, plain, retrieved)
    except ModelError:
        raise
    except RepoformerError as error:
        if len(group) == 1:
            yield Problem(group[0].id, f"the engine failed: {error}")
            return
    for task in remaining.values():
        async for row in _rows([task], policy, generator, retrieval, tokens):
            yield row


async def _pairs(
    group: Sequence[Task], found: Mapping[str, tuple[tuple[Hit, ...], float]], generator: Generator, tokens: int
) -> AsyncGenerator[tuple[Task, Tried, Tried]]:
    """Yield each task with its completion without chunks and with chunks. Without hits, both are the same."""
    trials: list[Trial] = []
    tasks: list[Task] = []
    for task in group:
        stop = stop_for(task, tokens)
        hits, _ = found[task.id]
        branches = [None, [hit.chunk for hit in hits]] if hits else [None]
        trials += [Trial(task.cursor, chunks, stop, task.truth) for chunks in branches]
        tasks += [task] * len(branches)
    ended: dict[str, dict[bool, Tried]] = {}
    engine = await generator.engine()
    async with contextlib.aclosing(engine.try_all(trials)) as tries:
        async for number, tried in tries:
            task = tasks[number]
            branches_done = ended.setdefault(task.id, {})
            branches_done[trials[number].chunks is not None] = tried
            if len(branches_done) == 1 + bool(found[task.id][0]):
                yield task, branches_done[False], branches_done.get(True, branches_done[False])


def _make_row(
    task: Task, hits: Sequence[Hit], milliseconds: float, reading: Reading, plain: Tried, retrieved: Tried
) -> Row:
    without, with_ = cut(plain.completed.text, task), cut(retrieved.completed.text, task)
    before, after = score(without, task.truth, task.path), score(with_, task.truth, task.path)
    surprises = plain.completed.surprises
    first = plain.reading  # the generator's reading, even if another model decides
    assert first is not None
    used = [hits[chunk.index] for chunk in retrieved.prompt.chunks] if hits else ()
    found = evidence(task.cursor, hits)
    return Row(
        id=task.id,
        kind=task.kind,
        variant=task.variant,
        repository=task.repository,
        path=task.path,
        language=task.cursor.language,
        truth=task.truth,
        without=without,
        with_=with_,
        em_without=before.em,
        em_with=after.em,
        es_without=before.es,
        es_with=after.es,
        f1_without=before.f1,
        f1_with=after.f1,
        p_cc=reading.p_cc,
        cc_is_top=reading.cc_is_top,
        first_p=first.first_p,
        first_entropy=first.first_entropy,
        score=found.best,
        second=found.second,
        names=found.names,
        overlap=found.overlap,
        match=found.match,
        scope=Shaper(task.cursor).scope,
        nll_without=plain.truth.nats if plain.truth else None,
        nll_with=retrieved.truth.nats if retrieved.truth else None,
        truth_tokens=plain.truth.tokens if plain.truth else None,
        shown_without=shown_of(task, plain.completed, ()),
        shown_with=shown_of(task, retrieved.completed, used),
        surprise=float(np.mean(surprises)),
        worst=max(surprises),
        chunks=len(retrieved.prompt.chunks) if hits else 0,
        prompt_tokens=plain.prompt.prompt_tokens,
        context_tokens=retrieved.prompt.context_tokens,
        tokens_without=plain.completed.tokens,
        tokens_with=retrieved.completed.tokens,
        retrieval_ms=milliseconds,
    )
