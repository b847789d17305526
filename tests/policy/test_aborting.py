"""Cancellations while a prompt is read: batches that are nearly finished, and progress between the keys of a user."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.engine.settings import EngineSettings
from policy.engine.worker import cache
from policy.engine.worker.aborting import FINISH_SECONDS, AbortFlag
from policy.engine.worker.batching import BLOCKS, MULTIPLE, Row, prompt_rows
from policy.engine.worker.cache import Aborted, KvCache
from policy.engine.worker.llama import Llama, Outcome


@given(st.integers(2, 300), st.integers(1, 70), st.integers(2, 12), st.sampled_from(BLOCKS))
def test_a_prompt_is_read_in_batches_of_whole_blocks(count: int, grain: int, wanted: int, block: int) -> None:
    wanted = min(wanted, count)
    batches = list(prompt_rows(0, 5 * block, range(count), grain, wanted, block))
    assert [row.token for rows in batches for row in rows] == list(range(count))
    multiple = max(block, MULTIPLE)
    assert all(len(rows) % multiple == 0 for rows in batches[:-1])
    assert all(2 <= len(rows) < grain + multiple + wanted for rows in batches)
    assert [row.logits for row in batches[-1]][-wanted:] == [True] * wanted
    assert not any(row.logits for rows in batches[:-1] for row in rows)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def value(flag: AbortFlag) -> bytes:
    return flag._flag.value


@pytest.mark.parametrize(
    ("expected", "passed", "finishes"),
    [
        (None, 0.0, False),
        (1.0, 0.0, False),
        (1.0, 1.0 - 2 * FINISH_SECONDS, False),
        (1.0, 1.0 - FINISH_SECONDS / 2, True),
        (1.0, 1.5, True),  # it is late, so it may end at any moment
    ],
)
def test_an_evaluation_that_is_about_to_end_is_finished(expected: float | None, passed: float, finishes: bool) -> None:
    clock = Clock()
    flag = AbortFlag(clock)
    with flag.evaluating(expected):
        clock.now += passed
        flag.set(True)
        assert flag.wanted
        assert value(flag) == (b"0" if finishes else b"1")
        if flag._timer is not None:
            flag._timer.join()
        assert value(flag) == b"1", "an evaluation that takes longer than expected is aborted"
    flag.set(False)
    assert (flag.wanted, value(flag)) == (False, b"0")


def test_a_cancelled_abort_does_not_stop_a_later_evaluation() -> None:
    flag = AbortFlag(Clock())
    with flag.evaluating(FINISH_SECONDS / 2):
        flag.set(True)
        timer = flag._timer
        flag.set(False)
    assert timer is not None
    timer.join()
    assert value(flag) == b"0"


def test_after_an_interruption_a_prompt_is_read_in_growing_batches(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama = Llama(model, EngineSettings(context_size=1024, threads=2))
    assert llama.block == 1
    sizes: list[int] = []
    decode = llama.decode

    def recorded(rows: list[Row]) -> Outcome:
        if len(sizes) == stop_after:
            llama.abort()
        if (outcome := decode(rows)) == "ok":
            sizes.append(len(rows))
        return outcome

    monkeypatch.setattr(llama, "decode", recorded)
    monkeypatch.setattr(cache, "BATCH_SECONDS", 1e-9)  # so short that every machine uses the smallest batches
    prompts = KvCache(llama)
    tokens = llama.encode("width = height * depth\n" * 60)[:300]
    stop_after = 2
    with pytest.raises(Aborted):
        prompts.evaluate("a", tokens)
    assert sizes == [llama.n_ubatch] * 2, "at first, the batches are large"
    llama.abort(False)
    stop_after = -1
    read = sum(sizes)
    sizes.clear()
    prompts.evaluate("a", tokens)
    growing = [MULTIPLE, 2 * MULTIPLE, 4 * MULTIPLE, llama.n_ubatch]
    assert sizes[:4] == growing, "after an interruption, the first one is small"
    assert sum(sizes) == len(tokens) - read, "the tokens before the interruption stay in the cache"
    monkeypatch.setattr(cache, "CALM_SECONDS", 0.0)
    sizes.clear()
    prompts.evaluate("b", tokens[::-1])
    assert max(sizes) == llama.n_ubatch, "if the last interruption was long ago, they are large again"
    llama.close()
