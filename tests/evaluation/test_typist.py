"""The simulated typist accepts correct suggestions and types the rest."""

from __future__ import annotations

import pytest

from indexer.model import Cursor
from policy.evaluation.typist import TypingSession, next_step, type_out, usable


@pytest.mark.parametrize(
    ("suggestion", "rest", "taken"),
    [
        ("", "x = 1", 0),
        ("x = 1", "x = 1", 5),
        ("x = ", "x = 1", 4),
        ("x = 2", "x = 1", 0),
        ("x = 1\ny = 3", "x = 1\ny = 2", 5),  # the first line is right
        ("\n", "\n    x", 0),  # the typist does not accept white space alone
    ],
)
def test_the_accepted_part_of_a_suggestion(suggestion: str, rest: str, taken: int) -> None:
    assert usable(suggestion, rest) == taken


@pytest.mark.parametrize(("rest", "length"), [("total = 1", 6), ("= 1", 2), ("(x)", 1), ("\n    y", 6), (" ", 1)])
def test_the_characters_typed_before_the_next_request(rest: str, length: int) -> None:
    assert next_step(rest) == length


async def typed(suggestions: dict[str, str]) -> TypingSession:
    """Simulate typing `total = price * count`. `suggestions` has the suggestion after each typed text."""

    async def suggest(cursor: Cursor) -> str:
        return suggestions.get(cursor.prefix.removeprefix("x\n"), "")

    return await type_out(Cursor("", "x\n", "", "python"), "total = price * count", suggest)


async def test_a_right_suggestion_ends_the_session() -> None:
    assert await typed({"": "total = price * count"}) == TypingSession(1, 1, 21, 21)


async def test_without_suggestions_everything_is_typed() -> None:
    session = await typed({})
    assert (session.shown, session.accepted, session.wanted) == (0, 0, 21)
    assert session.requests == 5


async def test_a_wrong_suggestion_costs_a_request_and_a_right_one_ends_it() -> None:
    assert await typed({"": "tally", "total ": "= price * count"}) == TypingSession(2, 2, 15, 21)
