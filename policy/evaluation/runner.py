"""Completing every task twice, in batches, with results on disk after each batch.

The two branches of a blank go into the same batch: they share what their prompts have in common, and every token that
is decoded is decoded for all sequences at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexer.model import Hit
from policy.engine import ModelInfo, Reading, Stop, Supervisor, Trial, Tried
from policy.errors import ModelError, RepoformerError

from . import record, table
from .cutting import cut, stop_for
from .retrieval import Retrieval
from .similarity import score
from .table import Row
from .task import Data, Problem, Task

MARKERS = 16  # tokens of a prompt that belong to no budget
LARGEST = 4  # blanks at a time: in one cache every sequence pays for the cells of all


@dataclass(frozen=True, slots=True)
class Models:
    """Who decides and who writes; the same model, unless a larger generator is tried with Repoformer as its policy."""

    policy: Supervisor
    generator: Supervisor

    async def close(self) -> None:
        """End both."""
        await self.policy.close()
        if self.generator is not self.policy:
            await self.generator.close()


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
    """Evaluate what `out` does not hold yet; returns all rows in the order of the tasks.

    Asks `stopped` between batches. Raises `EvaluationError` where `out` belongs to another run, `ModelError` and
    `EngineUnavailable` where there is no model to evaluate. A task that the engine fails on becomes a problem.
    """
    done = {row.id: row for row in record.begin(out, {**description, "tasks": record.fingerprint(data.tasks)})}
    problems = list(data.problems)
    todo = [task for task in data.tasks if task.id not in done]
    progress(len(data.tasks) - len(todo), len(data.tasks))
    with (out / record.RESULTS).open("a", encoding="utf-8") as file:
        while todo and not stopped():
            group, todo = await _next_group(todo, models, tokens)
            for task, row in zip(group, await _rows(group, models, retrieval, tokens), strict=True):
                if isinstance(row, Problem):
                    problems.append(row)
                    continue
                done[task.id] = row
                file.write(table.to_line(row))
            file.flush()
            progress(len(data.tasks) - len(todo), len(data.tasks))
    record.write_problems(out, problems)
    return [done[task.id] for task in data.tasks if task.id in done]


async def _next_group(todo: list[Task], models: Models, tokens: int) -> tuple[list[Task], list[Task]]:
    """As many tasks as fit the generator's cache, at most `LARGEST`."""
    await models.generator.engine()
    info = models.generator.info
    assert info is not None
    group: list[Task] = []
    left = info.context_size
    for task in todo[:LARGEST]:
        left -= 2 * _cells(info, stop_for(task, tokens))
        if left < 0 and group:
            break
        group.append(task)
    return group, todo[len(group) :]


def _cells(info: ModelInfo, stop: Stop) -> int:
    budgets = info.budgets
    return budgets.left + budgets.right + budgets.context + MARKERS + stop.tokens


async def _rows(group: Sequence[Task], models: Models, retrieval: Retrieval, tokens: int) -> list[Row | Problem]:
    """A row for each task, or what went wrong with it: a batch that fails is tried again one by one."""
    found = [retrieval.find(task) for task in group]
    try:
        generator = await models.generator.engine()
        trials = []
        for task, (hits, _) in zip(group, found, strict=True):
            trials.append(Trial(task.cursor, None, stop_for(task, tokens)))
            if hits:
                trials.append(Trial(task.cursor, [hit.chunk for hit in hits], stop_for(task, tokens)))
        tried = iter(await generator.try_all(trials))
        rows: list[Row | Problem] = []
        for task, (hits, milliseconds) in zip(group, found, strict=True):
            plain = next(tried)
            rich = next(tried) if hits else plain
            reading = await _reading(models, task) if models.policy is not models.generator else plain.reading
            assert reading is not None
            rows.append(_row(task, hits, milliseconds, reading, plain, rich))
        return rows
    except ModelError:
        raise
    except RepoformerError as error:
        if len(group) == 1:
            return [Problem(group[0].id, f"the engine failed: {error}")]
    return [row for task in group for row in await _rows([task], models, retrieval, tokens)]


async def _reading(models: Models, task: Task) -> Reading:
    return await (await models.policy.engine()).read("policy", task.cursor)


def _row(task: Task, hits: Sequence[Hit], milliseconds: float, reading: Reading, plain: Tried, rich: Tried) -> Row:
    without, with_ = cut(plain.completed.text, task), cut(rich.completed.text, task)
    before, after = score(without, task.truth, task.path), score(with_, task.truth, task.path)
    surprises = plain.completed.surprises
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
        score=max((hit.score for hit in hits), default=0.0),
        top_p=reading.top_p,
        entropy=reading.entropy,
        surprise=float(np.mean(surprises)),
        worst=max(surprises),
        chunks=len(rich.prompt.chunks) if hits else 0,
        prompt_tokens=plain.prompt.prompt_tokens,
        context_tokens=rich.prompt.context_tokens,
        tokens_without=plain.completed.tokens,
        tokens_with=rich.completed.tokens,
        retrieval_ms=milliseconds,
    )
