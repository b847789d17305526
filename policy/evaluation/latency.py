"""Measure the latency of requests with the code that serves editors: decision, retrieval and generation.

The completer reads the prompt and searches the index at the same time. Then it generates, with or without chunks as
decided. For a model that decides itself, this is the paper's online serving model (section 6.3). Every request starts
with an empty KV cache. This is the worst case: in an editor, nearly all tokens of a prompt are usually in the cache.
Each blank is completed under all policies before the next blank, so that other load on the machine affects all policies
equally.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from indexer.model import Retriever
from policy.completion.request import CompletionSettings, Request
from policy.completion.service import Completer
from policy.engine.supervisor import Supervisor
from policy.errors import EngineError
from policy.gating.decision import SelectionRule
from policy.gating.gate import Gate, selectable_gates

from .retrieval import Retrieval
from .task import Task

STAGES = ("decision", "retrieval", "generation", "total")


@dataclass(frozen=True, slots=True)
class TimedRequest:
    """The times of one request under one policy, in milliseconds. A stage that did not run has 0."""

    task: str
    policy: str
    retrieved: bool
    decision: float
    retrieval: float
    generation: float
    total: float


def served_policies(gates: Sequence[Gate]) -> Mapping[str, CompletionSettings]:
    """Return the settings of each policy that can be served, by the policy's name in a report."""
    one = CompletionSettings(candidates=1)  # more candidates would add the same time under every policy
    found = {"never": replace(one, policy="never"), "always": replace(one, policy="always")}
    if gates:
        selections: list[SelectionRule] = ["threshold"]
        if len(gates) > 1:
            selections.append("token")
        if gates[0].name != "evidence":
            selections.append("greedy")
        found |= {f"selective, {selection}": replace(one, selection=selection) for selection in selections}
    else:
        found["trial retrieval"] = one
    return found


async def measure(
    tasks: Sequence[Task],
    supervisor: Supervisor,
    retrieval: Retrieval,
    *,
    stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[TimedRequest]:
    """Complete each task once under every policy that can be served, and return the times.

    A request for which the engine fails is omitted. `stopped` is checked before each task.
    """
    engine = await supervisor.engine()
    assert supervisor.info is not None
    policies = served_policies(selectable_gates(supervisor.info.metadata, decides=supervisor.info.selective))
    timed: list[TimedRequest] = []
    for number, task in enumerate(tasks):
        if stopped():
            break
        retriever: Retriever = retrieval.snapshot(task)
        for name, settings in policies.items():
            completer = Completer(supervisor, lambda retriever=retriever: retriever, settings)  # type: ignore[misc]
            try:
                await engine.forget("")
                completion = await completer.complete(Request(task.cursor, task.id, "invoked"))
            except EngineError:
                engine = await supervisor.engine()
                continue
            if "generation" in completion.timings_ms:
                times = {stage: completion.timings_ms.get(stage, 0.0) for stage in STAGES}
                retrieved = bool(completion.decision and completion.decision.retrieve)
                timed.append(TimedRequest(task.id, name, retrieved, **times))
        progress(number + 1, len(tasks))
    return timed


def to_json(timed: Sequence[TimedRequest]) -> list[dict[str, Any]]:
    """Return the times as JSON-compatible dictionaries."""
    return [asdict(each) for each in timed]
