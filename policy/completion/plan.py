"""Plan which work to start immediately when a request arrives."""

from __future__ import annotations

from dataclasses import dataclass

from indexer.model import Hit
from policy.gating.decision import Decision, Policy, by_policy


@dataclass(frozen=True, slots=True)
class Plan:
    """The work to start immediately.

    `decision` is None if the decision is not made yet. `search` says whether to search the index, and `read` says
    whether to evaluate the prompt up to the decision. `generate` has the hits whose chunks are in the prompt of the
    generation. If it is empty, the generation starts without chunks. If it is None, no generation starts yet.
    """

    decision: Decision | None
    search: bool
    read: bool
    generate: tuple[Hit, ...] | None


def plan(
    policy: Policy, held: Decision | None, pinned: tuple[Hit, ...], *, model_decides: bool, separate: bool
) -> Plan:
    """Return the work to start immediately for a request.

    `held` is the earlier decision for the cursor's line, and `pinned` has the pinned chunks. `model_decides` says
    whether every decision needs a reading. `separate` says whether a model other than the local one generates. In this
    case, a generation without chunks can run during the decision (paper, section 6.3).

    The search starts immediately, so that its result is ready when the model has read the prompt. No search starts if
    the decision is to abstain, or if chunks are pinned. If chunks are pinned, `idle.py` searches after the answer.
    """
    decision = by_policy(policy) or held
    if decision is None:
        return Plan(None, search=not pinned, read=model_decides, generate=() if separate else None)
    if not decision.retrieve:
        return Plan(decision, search=False, read=False, generate=())
    return Plan(decision, search=not pinned, read=False, generate=pinned or None)
