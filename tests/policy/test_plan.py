"""What a completion starts at once, as a table: no engine, no index."""

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
        # The model has yet to decide: it reads while the index is searched.
        ("selective", None, (), True, False, True, True, None),
        ("selective", None, HITS, True, False, False, True, None),
        # Another model generates: the plain generation runs beside the decision.
        ("selective", None, (), True, True, True, True, ()),
        ("selective", None, HITS, True, True, False, True, ()),
        # The similarity has yet to decide: nothing is read, and the search comes first.
        ("selective", None, (), False, False, True, False, None),
        ("selective", None, HITS, False, False, False, False, None),
        ("selective", None, (), False, True, True, False, ()),
        # The line's decision holds.
        ("selective", RETRIEVE, (), True, False, True, False, None),
        ("selective", RETRIEVE, HITS, True, False, False, False, HITS),
        ("selective", RETRIEVE, HITS, True, True, False, False, HITS),
        ("selective", ABSTAIN, (), True, False, False, False, ()),
        ("selective", ABSTAIN, HITS, True, False, False, False, ()),
        # The policy decides, whatever was decided on this line under another one.
        ("always", ABSTAIN, (), True, False, True, False, None),
        ("always", None, HITS, True, False, False, False, HITS),
        ("always", None, (), True, True, True, False, None),
        ("never", RETRIEVE, HITS, True, False, False, False, ()),
        ("never", None, (), False, True, False, False, ()),
    ],
)
def test_what_starts_at_once(
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
def test_who_has_decided(policy: Policy, held: Decision | None, source: str | None) -> None:
    decision = plan(policy, held, (), model_decides=True, separate=False).decision
    assert (decision.source if decision else None) == source
