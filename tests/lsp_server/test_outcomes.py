"""The outcome of a suggestion, which the server derives from the text at the next request."""

from __future__ import annotations

import pytest

from indexer.model import Cursor
from lsp_server.outcomes import MIN_VISIBLE, Outcomes, outcome
from policy.completion.request import Completion, Request
from policy.gating.keep import Estimate
from policy.gating.learned import Outcome


def at(marked: str) -> Cursor:
    prefix, _, suffix = marked.partition("‸")
    return Cursor("/w/a.py", prefix, suffix, "python")


@pytest.mark.parametrize(
    ("now", "expect"),
    [
        ("x = ‸\ny", None),
        ("x = ab‸\ny", None),
        ("x = abc‸\ny", "accepted"),
        ("x = abc()‸\ny", "accepted"),
        ("x = q‸\ny", "typed over"),
        ("x = aq‸\ny", "typed over"),
        ("x‸ = \ny", "dismissed"),
        ("x = \ny‸", "dismissed"),
        ("‸", "dismissed"),
    ],
)
def test_what_became_of_it(now: str, expect: Outcome | None) -> None:
    assert outcome("abc", at("x = ‸\ny"), at(now)) == expect


def session(*events: tuple[float, str], p: float | None = 0.4) -> list[Outcome]:
    """Suggest `abc` after `x = `, simulate events, and return the outcomes that are counted.

    Each event is a time in seconds, and "accept" or the text with the cursor `‸` at the next request. `p` is the
    estimate of the suggestion.
    """
    found: list[Outcome] = []
    now = 0.0
    estimate = None if p is None else Estimate(p, 0.2, "balanced")
    outcomes = Outcomes(lambda _request, became, _p: found.append(became), lambda: now)
    request = Request(at("x = ‸\ny"), "a")
    outcomes.offered(7, request, Completion("abc", estimate=estimate))
    for when, what in events:
        now = when
        if what == "accept":
            outcomes.accepted(7)
        else:
            outcomes.requested(Request(at(what), "a"))
    return found


def test_each_suggestion_counts_once() -> None:
    assert session((0.1, "accept"), (0.2, "x = abc‸\ny"), (0.3, "accept")) == ["accepted"]
    assert session((2 * MIN_VISIBLE, "x = q‸\ny"), (3 * MIN_VISIBLE, "x = qq‸\ny")) == ["typed over"]
    assert session((2 * MIN_VISIBLE, "x = a‸\ny"), (3 * MIN_VISIBLE, "x‸\ny")) == ["dismissed"]


def test_what_was_not_read_does_not_count_unless_it_was_typed() -> None:
    assert session((MIN_VISIBLE / 2, "x = q‸\ny"), (3 * MIN_VISIBLE, "x = qq‸\ny")) == []
    assert session((MIN_VISIBLE / 2, "x = abc‸\ny")) == ["accepted"]


def test_without_an_estimate_nothing_is_learned() -> None:
    assert session((2 * MIN_VISIBLE, "x = q‸\ny"), p=None) == []
