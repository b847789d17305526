"""The counts of outcomes: how they shift the showing threshold, where they are stored, and damaged files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.gating import learned
from policy.gating.learned import MOST_SHIFT, Counts, Outcome

OUTCOMES: list[Outcome] = ["accepted", "typed over", "dismissed"]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    target = tmp_path / "state" / "learned.json"
    monkeypatch.setattr(learned, "file", lambda: target)
    return target


def after(*outcomes: Outcome, p: float = 0.5) -> Counts:
    counts = Counts()
    for outcome in outcomes:
        counts = counts.after(outcome, p)
    return counts


ACCEPTED: Outcome = "accepted"
TYPED_OVER: Outcome = "typed over"
DISMISSED: Outcome = "dismissed"


def test_fewer_than_expected_raise_the_threshold_and_more_lower_it() -> None:
    assert after(*[DISMISSED] * 20).shift > 0
    assert after(*[TYPED_OVER] * 20).shift > 0
    assert after(*[ACCEPTED] * 20).shift < 0
    assert Counts().shift == 0
    assert abs(after(*[ACCEPTED, DISMISSED] * 10).shift) < 0.05


def test_a_single_event_hardly_moves_it() -> None:
    assert abs(after("dismissed").shift) < 0.1


def test_old_events_fade() -> None:
    changed = after(*[DISMISSED] * 300, *[ACCEPTED] * 600)
    assert changed.shift < 0
    assert changed.total < 201


@given(st.lists(st.tuples(st.sampled_from(OUTCOMES), st.floats(0, 1)), max_size=60))
def test_the_shift_is_bounded(events: list[tuple[Outcome, float]]) -> None:
    counts = Counts()
    for outcome, p in events:
        counts = counts.after(outcome, p)
    assert -MOST_SHIFT <= counts.shift <= MOST_SHIFT


def test_counts_are_kept_by_workspace_without_its_name(tmp_path: Path, state: Path) -> None:
    one, other = tmp_path / "secret-project", tmp_path / "other"
    learned.add(one, "accepted", 0.25)
    learned.add(other, "dismissed", 0.5)
    assert learned.counts_of(one) == Counts(accepted=1, expected=0.25)
    assert learned.counts_of(other) == Counts(dismissed=1, expected=0.5)
    assert "secret" not in state.read_text("utf-8")
    assert learned.reset(one) == 1
    assert learned.counts_of(one) == Counts()
    assert learned.counts_of(other).total == 1
    assert learned.reset() == 1
    assert learned.counts_of(other) == Counts()


DAMAGE = ["", "[]", "{", "null", '{"a": 1}', '{"KEY": {"accepted": 1}}', '{"KEY": null}', "[" * 100_000]
NUMBERS = ["NaN", "-1", "1e300", '"many"', "true"]


@pytest.mark.parametrize(
    "text",
    [*DAMAGE, *(f'{{"KEY": {{"accepted": {n}, "typed_over": 0, "dismissed": 0, "expected": 0}}}}' for n in NUMBERS)],
)
def test_a_damaged_file_counts_as_none_and_is_replaced(tmp_path: Path, state: Path, text: str) -> None:
    learned.add(tmp_path, "accepted", 0.5)
    (key,) = json.loads(state.read_text("utf-8"))
    state.write_text(text.replace("KEY", key), "utf-8")
    assert learned.counts_of(tmp_path) == Counts()
    assert learned.add(tmp_path, "dismissed", 0.5) == Counts(dismissed=1, expected=0.5)
    assert learned.counts_of(tmp_path).total == 1


def test_a_file_with_one_bad_workspace_keeps_the_others(tmp_path: Path, state: Path) -> None:
    learned.add(tmp_path, "accepted", 0.5)
    told = json.loads(state.read_text("utf-8"))
    state.write_text(json.dumps({**told, "other": {"accepted": -5}}), "utf-8")
    assert learned.counts_of(tmp_path).accepted == 1
