"""Plan which work to start immediately, before the model reads anything."""

from __future__ import annotations

from dataclasses import dataclass

from indexer.model import Hit
from policy.gating.decision import Decision, Policy, by_policy


@dataclass(frozen=True, slots=True)
class Plan:
    """The work to start immediately.

    `decision` is None if the model or the similarity has to decide. `search` says whether to search the index, and
    `read` whether to evaluate the prompt up to the decision. `generate` has the chunks to start a generation with. An
    empty tuple starts a plain generation, and None starts none.
    """

    decision: Decision | None
    search: bool
    read: bool
    generate: tuple[Hit, ...] | None


def plan(
    policy: Policy, held: Decision | None, pinned: tuple[Hit, ...], *, model_decides: bool, separate: bool
) -> Plan:
    """Plan a completion.

    `held` is the line's earlier decision, and `pinned` has the chunks in the prompt. `separate` says that a different
    model generates than decides, so that the plain generation can run during the decision (paper, section 6.3).

    A search starts now, unless chunks are pinned or the decision is to abstain, so that its result is ready when the
    model has read the prompt. With pinned chunks, the search runs after the answer (`idle`).
    """
    decision = by_policy(policy) or held
    if decision is None:
        return Plan(None, search=not pinned, read=model_decides, generate=() if separate else None)
    if not decision.retrieve:
        return Plan(decision, search=False, read=False, generate=())
    return Plan(decision, search=not pinned, read=False, generate=pinned or None)
