"""The estimated probability that the user keeps a text: its features, values and metadata, and what is shown."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.model import Cursor
from policy.completion.request import Completion, CompletionSettings, Request
from policy.completion.service import judged
from policy.engine.messages import Surprise
from policy.gating.keep import (
    FEATURES,
    Feature,
    Keep,
    Suggest,
    aligned,
    features,
    is_shortened,
    keep_from_metadata,
    rest_of,
)

SURE = (Surprise(3, 0.01), Surprise(6, 0.02))
UNSURE = (Surprise(3, 2.0), Surprise(6, 3.0))
# For `UNSURE`, with a mean surprise of 2.5 nats, the estimate is 0.08. For `SURE`, with 0.015 nats, it is 0.92.
KEEP = Keep({"mean": -2.0}, offset=2.5, balanced=0.5, careful=0.95)


def at(marked: str, language: str = "python") -> Cursor:
    prefix, _, suffix = marked.partition("‸")
    return Cursor("/w/a.py", prefix, suffix, language)


def value(name: Feature, marked: str, text: str, language: str = "python") -> float:
    found = features(at(marked, language), text, SURE)
    assert found is not None
    assert found.keys() == set(FEATURES)
    return found[name]


def test_what_the_tokens_say() -> None:
    found = features(at("x = ‸"), "f(1, 2)", (Surprise(2, 0.5), Surprise(5, 1.5), Surprise(7, 0.1)))
    assert found is not None
    assert (found["first"], found["worst"]) == (0.5, 1.5)
    assert found["mean"] == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("name", "marked", "text", "expect"),
    [
        ("strange", "total = 1\nx = ‸", "total + total", 0.0),
        ("strange", "total = 1\nx = ‸", "total + other", math.log1p(1)),
        ("again", "f(1)\n‸\n", "f(1)", 1.0),
        ("again", "f(1)\n‸\n", "f(2)", 0.0),
        ("block", "‸", "if x:\n    y()", 1.0),
        ("begun", "    ‸", "f()", 0.0),
        ("begun", "    x‸", " = 1", 1.0),
        ("rest", "f(‸, 2)", "1", 1.0),
        ("closed", "f()‸", ".g()", 1.0),
        ("closed", "f()‸ + 1", ".g()", 0.0),
        ("space", "x = ‸", "1", 1.0),
        ("comment", "x = 1  # the‸", " first", 1.0),
        ("comment", "x = a # b‸", " first", 1.0),
    ],
)
def test_what_the_place_says(name: Feature, marked: str, text: str, expect: float) -> None:
    assert value(name, marked, text) == pytest.approx(expect)


def test_without_probabilities_nothing_is_known() -> None:
    assert features(at("x = ‸"), "1", ()) is None
    assert features(at("x = ‸"), "  ", SURE) is None


def test_only_tokens_of_what_is_shown_count() -> None:
    written = (Surprise(4, 0.1), Surprise(8, 0.2), Surprise(12, 0.3))
    assert aligned("abcdefghijkl", "abcdef", written) == written[:2]
    # The shown text has four spaces more than the generated one. `end` is an offset into the shown text.
    assert [each.end for each in aligned("    abcd\nx", "abcd", (Surprise(4, 0.0), Surprise(8, 1.0)))] == [0, 4]


def test_typing_through_leaves_the_rest() -> None:
    assert rest_of((Surprise(3, 1.0), Surprise(6, 2.0)), 3) == (Surprise(3, 2.0),)
    assert rest_of((Surprise(3, 1.0), Surprise(6, 2.0)), 1) == (Surprise(2, 1.0), Surprise(5, 2.0))


def test_shortened() -> None:
    assert is_shortened("f(a))", "f(a)")
    assert not is_shortened("f(a)\nmore", "f(a)")


def test_metadata_contains_the_whole_estimate() -> None:
    weights: dict[Feature, float] = {name: 0.25 * number for number, name in enumerate(FEATURES)}
    keep = Keep(weights, -1.5, 0.375, 0.625)
    assert keep_from_metadata(keep.to_metadata()) == keep


@pytest.mark.parametrize("change", [
    {"repoformer.keep.offset": "many"}, {"repoformer.keep.offset": "nan"}, {"repoformer.keep.color": "1"},
    {"repoformer.keep.threshold.balanced": "1.5"}, {"repoformer.keep.mean": "inf"},
])  # fmt: skip
def test_invalid_metadata_is_no_estimate(change: dict[str, str]) -> None:
    assert keep_from_metadata({**KEEP.to_metadata(), **change}) is None


def test_a_model_without_one_has_none() -> None:
    assert keep_from_metadata({"repoformer.gate.token.offset": "1"}) is None


@given(st.floats(-1e6, 1e6), st.floats(-5, 5), st.sampled_from(["eager", "balanced", "careful"]))
def test_estimates_are_probabilities(mean: float, shift: float, suggest: Suggest) -> None:
    estimate = KEEP.estimate({"mean": mean}, suggest, shift)
    assert 0 <= estimate.p <= 1
    assert 0 <= estimate.threshold <= 1


def answer(tokens: tuple[Surprise, ...], suggest: Suggest, *, invoked: bool = False, shift: float = 0.0) -> Completion:
    request = Request(at("x = ‸"), "a", "invoked" if invoked else "automatic", shift=shift)
    completion = Completion("abcdef", surprises=tokens, keep=KEEP, others=("abc",))
    return judged(completion, request, CompletionSettings(suggest=suggest))


def test_unlikely_texts_are_not_shown_and_the_reason_is_said() -> None:
    assert answer(SURE, "balanced").text == "abcdef"
    quiet = answer(UNSURE, "balanced")
    assert (quiet.text, quiet.others) == ("", ())
    assert quiet.reason == (
        "not shown: the estimated probability that you keep it is 8%, and `suggest: balanced` needs at least 50%"
    )
    assert quiet.estimate is not None
    assert quiet.estimate.suggest == "balanced"
    assert quiet.estimate.p < quiet.estimate.threshold
    assert answer(UNSURE, "eager").text == "abcdef"
    assert answer(SURE, "careful").text == ""


def test_a_probability_just_below_the_threshold_has_more_digits() -> None:
    reason = answer((Surprise(6, 1.2505),), "balanced").reason
    assert "keep it is 49.98%" in reason
    assert "needs at least 50.00%" in reason


def test_what_is_asked_for_is_shown() -> None:
    asked = answer(UNSURE, "careful", invoked=True)
    assert asked.text == "abcdef"
    assert asked.estimate is not None


def test_what_was_learned_moves_the_threshold() -> None:
    assert answer(SURE, "balanced", shift=4.0).text == ""
    assert answer(UNSURE, "balanced", shift=-4.0).text == "abcdef"


def test_without_an_estimate_all_is_shown() -> None:
    request = Request(at("x = ‸"), "a")
    for completion in (Completion("abc", surprises=UNSURE), Completion("abc", keep=KEEP)):
        assert judged(completion, request, CompletionSettings(suggest="careful")) == completion


def test_the_rest_is_judged_by_what_is_left() -> None:
    whole = Completion("abcdef", surprises=(Surprise(3, 4.0), Surprise(6, 0.01)), keep=KEEP)
    request = Request(at("x = ‸"), "a")
    assert judged(whole, request, CompletionSettings()).text == ""
    typed = replace(request, cursor=at("x = abc‸"))
    assert judged(whole.rest("def", 3), typed, CompletionSettings()).text == "def"
