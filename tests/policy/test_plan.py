"""The plan of a completion: what it starts immediately, in each situation. Each row of the table is a situation."""

from __future__ import annotations

import pytest

from indexer.model import Chunk, Hit
from policy.completion.plan import plan
from policy.gating.decision import Decision, Policy

HITS = (Hit(Chunk("/w", "a.py", 1, 1, "a = 1\n", "block"), 0.5),)
RETRIEVE = Decision(0.7, 0.4, True, "token", held=True)
ABSTAIN = Decision(0.3, 0.4, False, "token", held=True)


@pytest.mark.parametrize(
    ("policy", "held", "pinned", "model_decides", "separate", "search", "read", "generate"),
    [
        # The local model decides, so it reads while the index is searched. Pinned chunks make the search unnecessary.
        ("selective", None, (), True, False, True, True, None),
        ("selective", None, HITS, True, False, False, True, None),
        # Another model generates, so its plain generation starts at the same time as the decision.
        ("selective", None, (), True, True, True, True, ()),
        ("selective", None, HITS, True, True, False, True, ()),
        # The similarity of the best chunk decides, so no model reads. Without pinned chunks, the search starts.
        ("selective", None, (), False, False, True, False, None),
        ("selective", None, HITS, False, False, False, False, None),
        ("selective", None, (), False, True, True, False, ()),
        # An earlier decision holds for the line.
        ("selective", RETRIEVE, (), True, False, True, False, None),
        ("selective", RETRIEVE, HITS, True, False, False, False, HITS),
        ("selective", RETRIEVE, HITS, True, True, False, False, HITS),
        ("selective", ABSTAIN, (), True, False, False, False, ()),
        ("selective", ABSTAIN, HITS, True, False, False, False, ()),
        # The policy decides, even if an earlier decision of the line, under another policy, differs.
        ("always", ABSTAIN, (), True, False, True, False, None),
        ("always", None, HITS, True, False, False, False, HITS),
        ("always", None, (), True, True, True, False, None),
        ("never", RETRIEVE, HITS, True, False, False, False, ()),
        ("never", None, (), False, True, False, False, ()),
    ],
)
def test_a_plan_says_what_to_start(
    policy: Policy,
    held: Decision | None,
    pinned: tuple[Hit, ...],
    model_decides: bool,
    separate: bool,
    search: bool,
    read: bool,
    generate: tuple[Hit, ...] | None,
) -> None:
    planned = plan(policy, held, pinned, model_decides=model_decides, separate=separate)
    assert (planned.search, planned.read, planned.generate) == (search, read, generate)


@pytest.mark.parametrize(
    ("policy", "held", "source"),
    [
        ("selective", None, None),
        ("selective", ABSTAIN, "token"),
        ("always", ABSTAIN, "policy"),
        ("never", None, "policy"),
    ],
)
def test_a_plan_keeps_the_source_of_its_decision(policy: Policy, held: Decision | None, source: str | None) -> None:
    decision = plan(policy, held, (), model_decides=True, separate=False).decision
    assert (decision.source if decision else None) == source
