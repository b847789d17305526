"""No fuzz target fails for an input of the corpus, or for a random change of such an input."""

from __future__ import annotations

import pytest

from fuzz.__main__ import corpus, main
from fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_small_and_holds(name: str) -> None:
    kept = corpus(name)
    assert kept and sum(map(len, kept)) < 10_000
    for data in kept:
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_ten_seconds_of_changes_find_nothing(name: str) -> None:
    assert main([name, "--seconds", "10", "--unguided"]) == 0
