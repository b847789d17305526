"""What a completion starts at once, from what is known before the model reads anything."""

from __future__ import annotations

from dataclasses import dataclass

from indexer.model import Hit
from policy.gating.decision import Decision, Policy, by_policy


@dataclass(frozen=True, slots=True)
class Plan:
    """The work to start at once.

    `decision` is None while the model or the similarity has yet to decide. `search`: search the index. `read`: evaluate
    the prompt up to the decision. `generate` has the chunks to start a generation with, none for a plain one; None
    starts no generation.
    """

    decision: Decision | None
    search: bool
    read: bool
    generate: tuple[Hit, ...] | None


def plan(
    policy: Policy, held: Decision | None, pinned: tuple[Hit, ...], *, model_decides: bool, separate: bool
) -> Plan:
    """Plan a completion.

    `held` is the line's earlier decision, `pinned` the chunks in the prompt. `separate`: another model than the one
    that decides generates, so that the plain generation can run beside the decision (paper, section 6.3).

    A search starts unless chunks are pinned or the decision is to abstain: the result is there when the model has read.
    With pinned chunks it waits until the request has its answer, see `idle`.
    """
    decision = by_policy(policy) or held
    if decision is None:
        return Plan(None, search=not pinned, read=model_decides, generate=() if separate else None)
    if not decision.retrieve:
        return Plan(decision, search=False, read=False, generate=())
    return Plan(decision, search=not pinned, read=False, generate=pinned or None)
