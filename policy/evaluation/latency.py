"""What a request takes, measured through the very code that serves: decision, retrieval, generation, all of it.

The completer starts reading and retrieval together and goes on with one of the two generations, which is the paper's
online serving model (section 6.3) for a model that is its own policy. Every request starts with an empty KV cache, the
worst case in an editor: a keystroke there finds nearly everything evaluated. The policies take turns at each blank, so
that whatever else the machine does at that moment is shared fairly.
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
from policy.gating.gate import Gate, gates_of

from .retrieval import Retrieval
from .task import Task

STAGES = ("decision", "retrieval", "generation", "total")


@dataclass(frozen=True, slots=True)
class Timed:
    """One request under one policy; times in milliseconds, 0 for a stage that did not run."""

    task: str
    policy: str
    retrieved: bool
    decision: float
    retrieval: float
    generation: float
    total: float


def served_policies(gates: Sequence[Gate]) -> Mapping[str, CompletionSettings]:
    """The policies that can be served, by the names of a report; a model that decides nothing has no gates."""
    one = CompletionSettings(candidates=1)  # further ones take their time whatever the policy
    found = {"never": replace(one, policy="never"), "always": replace(one, policy="always")}
    if gates:
        selections: tuple[SelectionRule, ...] = ("threshold", "token", "greedy")
        found |= {
            f"selective, {selection}": replace(one, selection=selection)
            for selection in selections
            if selection != "token" or len(gates) > 1
        }
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
) -> list[Timed]:
    """Complete each task once under every policy that is served. A request that the engine fails on is left out."""
    engine = await supervisor.engine()
    assert supervisor.info is not None
    policies = served_policies(gates_of(supervisor.info.metadata) if supervisor.info.selective else [])
    timed: list[Timed] = []
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
                timed.append(Timed(task.id, name, retrieved, **times))
        progress(number + 1, len(tasks))
    return timed


def to_json(timed: Sequence[Timed]) -> list[dict[str, Any]]:
    """Plain values."""
    return [asdict(each) for each in timed]
