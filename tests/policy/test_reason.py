"""A completion has the reason why nothing is shown. The engine is simulated and generates a given text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from indexer.model import Cursor
from policy.completion.attempt import Attempt, Generated
from policy.completion.clock import Clock
from policy.completion.shape import Shaper
from policy.engine.messages import GenerationRequest, Urgency
from policy.generators import SameModel, SingleCandidate
from policy.prompting.prompt import Budgets


class Written(SingleCandidate):
    """A generation of a given text, after which the model ends the text."""

    model, prompt, tokens, ended = "fake", None, 1, True

    def __init__(self, text: str) -> None:
        self._text = text

    async def __aiter__(self) -> AsyncGenerator[str]:
        for character in self._text:
            yield character


class Writer:
    """A simulated engine that generates the same text for every request."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.budgets = Budgets()

    def generate(self, request: GenerationRequest, urgency: Urgency | None = None) -> Written:
        return Written(self._text)


def generated(source: str, written: str) -> Generated:
    prefix, suffix = source.split("‸")
    cursor = Cursor("", prefix, suffix, "python")

    async def attempt() -> Generated:
        engine = cast(Any, Writer(written))
        of = Attempt(
            engine,
            SameModel(),
            "a",
            cursor,
            Clock(),
            patience=60,
            invoked=False,
            urgency=Urgency(),
            report=lambda text: None,
        )
        try:
            return await of.generate(Shaper(cursor), (), 100, 1)
        finally:
            await of.end()

    return asyncio.run(attempt())


@pytest.mark.parametrize(
    ("source", "written", "reason"),
    [
        ("x = ‸\n", "", "the model generated no text"),
        ("x = f(‸)\n", ")(\n", "the text would leave brackets, quotes or elements unbalanced"),
        ("x = 1‸\n", " 2\n", "the text would add a syntax error"),
        (
            "def f(a):\n    ‸\n    return b\n",
            "return b\n",
            "the text would repeat what is right of the cursor or below",
        ),
    ],
)
def test_a_reason_comes_with_nothing(source: str, written: str, reason: str) -> None:
    found = generated(source, written)
    assert (found.texts, found.reason) == ((), reason)


def test_a_text_comes_without_a_reason() -> None:
    found = generated("x = f(‸)\n", "a)\n")
    assert (found.texts, found.reason) == (("a",), "")
