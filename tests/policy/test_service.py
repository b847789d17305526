"""Single requests, from the cursor to the completion, with a real model and an index in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from indexer.model import Cursor
from indexer.snapshot import Snapshot
from policy.completion import attempt, cost, idle
from policy.completion.request import CompletionSettings, Request
from policy.completion.service import Completer
from policy.engine.messages import Urgency
from policy.engine.settings import EngineSettings
from policy.engine.supervisor import Supervisor

pytestmark = pytest.mark.asyncio(loop_scope="module")

GEOMETRY = """def area_of_rectangle(width_in_metres, height_in_metres):
    return width_in_metres * height_in_metres


def perimeter_of_rectangle(width_in_metres, height_in_metres):
    return 2 * (width_in_metres + height_in_metres)
"""
MAIN = "from geometry import area_of_rectangle, perimeter_of_rectangle\n\nwidth_in_metres = 3\nheight_in_metres = 4\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def supervisor(model: Path) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(
        model,
        EngineSettings(context_size=4096, threads=2),
        budgets={"left": 256, "right": 64, "context": 128},
    )
    yield supervisor
    await supervisor.close()


def completer(supervisor: Supervisor, **settings: object) -> Completer:
    snapshot = Snapshot.of([("geometry.py", GEOMETRY), ("main.py", MAIN)], root="/w")
    return Completer(supervisor, lambda: snapshot, CompletionSettings(**{"patience": 60, **settings}))  # type: ignore[arg-type]


def at(source: str) -> Request:
    prefix, suffix = source.split("‸")
    return Request(Cursor("/w/main.py", prefix, suffix, "python"), "file:///w/main.py")


CALL = at(MAIN + "print(area_of_rectangle(‸\n")


async def test_a_completion_ends_with_its_first_statement_after_the_time_limit(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "LONGEST", 1e12)
    block = at(MAIN + "def total_area(widths, heights):\n    ‸\n")
    whole = await completer(supervisor, policy="never").complete(block)
    first = await completer(supervisor, policy="never", patience=1e-9).complete(block)
    assert "\n" in whole.text
    assert first.text
    assert whole.text.startswith(first.text)
    assert len(first.text) < len(whole.text)


async def test_always_retrieves(supervisor: Supervisor) -> None:
    completion = await completer(supervisor, policy="always").complete(CALL)
    assert completion.text
    assert completion.decision is not None
    assert (completion.decision.retrieve, completion.decision.source) == (True, "policy")
    assert [hit.chunk.path for hit in completion.hits] == ["geometry.py"]
    assert completion.stats["context_tokens"] > 20
    assert completion.trimmed == ()
    assert {"retrieval", "prefill", "generation", "total"} <= completion.timings_ms.keys()


async def test_no_key_waits_for_better_chunks(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "BOTH_SECONDS", 1e6)  # otherwise, a busy machine reads no other chunks within a line
    shapes = "def area_of_circle(radius_in_metres):\n    return 3 * radius_in_metres\n"
    snapshots = [Snapshot.of([file], root="/w") for file in (("shapes.py", shapes), ("geometry.py", GEOMETRY))]
    now = snapshots[0]
    settings = CompletionSettings(policy="always", patience=60, line_tokens=4)
    typist = Completer(supervisor, lambda: now, settings)

    async def key(typed: str) -> tuple[list[str], int]:
        request = replace(at(MAIN + f"print(area_of_{typed}‸\n"), document="file:///w/a.py")  # this test's own document
        completion = await typist.complete(request)
        # If the typed letter is the beginning of the last text, the rest is reused, and no token is evaluated.
        return [hit.chunk.path for hit in completion.hits], completion.stats.get("evaluated_tokens", 0)

    first, read = await key("")
    assert first == ["shapes.py"], "the first request does not wait for the search, although no chunk is pinned"
    assert read > 40
    now = snapshots[1]

    async def type_until_the_chunks_have_changed_twice() -> None:
        nonlocal now
        typed, found = "", first
        while found != ["geometry.py"]:
            found, evaluated = await key(typed := typed + "x")
            assert found in (["shapes.py"], ["geometry.py"])
            assert evaluated < 16, "a key waits for the evaluation of a chunk"
            await asyncio.sleep(1)  # in this pause, better chunks are searched for and evaluated
        now = Snapshot.of([], root="/w")
        while found:
            found, evaluated = await key(typed := typed + "x")
            await asyncio.sleep(1)

    await asyncio.wait_for(type_until_the_chunks_have_changed_twice(), 120)


async def test_no_key_waits_for_chunks_that_are_not_in_the_cache(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "BOTH_SECONDS", 1e6)  # otherwise, a busy machine reads the chunks only in a longer pause
    await (await supervisor.engine()).forget("")
    typist = completer(supervisor, line_tokens=4, threshold=0.1)
    await typist.complete(replace(CALL, policy="never"))
    typed = ""
    completion = await typist.complete(CALL)
    assert completion.decision is not None and completion.decision.deferred
    assert completion.hits == ()

    async def type_until_the_chunks_are_read() -> None:
        nonlocal completion, typed
        while not completion.hits:
            await asyncio.sleep(1)  # in this pause, the prompt with the chunks is evaluated
            typed += "x"
            completion = await typist.complete(at(MAIN + f"print(area_of_rectangle({typed}‸\n"))
            evaluated = completion.stats.get("evaluated_tokens", 0)
            assert evaluated <= cost.FEW_TOKENS, "a key waits for the evaluation of a chunk"

    await asyncio.wait_for(type_until_the_chunks_are_read(), 120)
    assert completion.decision is not None and completion.decision.retrieve


async def test_an_invoked_request_waits_for_its_chunks(supervisor: Supervisor) -> None:
    await (await supervisor.engine()).forget("")
    typist = completer(supervisor, line_tokens=4)
    await typist.complete(replace(CALL, policy="never"))
    completion = await typist.complete(replace(CALL, trigger="invoked"))
    assert completion.hits


@pytest.mark.parametrize(
    ("prompt", "chunks", "both"),
    [(0.0, 1e6, False), (1e6, 1e6, True), (0.0, 0.0, True)],
    ids=["slow", "fast", "slow also for chunks alone"],
)
async def test_only_the_branches_that_a_key_may_need_are_read_ahead(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, prompt: float, chunks: float, both: bool
) -> None:
    engine = await supervisor.engine()
    await engine.forget("")
    monkeypatch.setattr(cost, "BOTH_SECONDS", prompt)
    monkeypatch.setattr(cost, "WAIT_SECONDS", chunks)
    typist = completer(supervisor)
    await typist.warm(CALL.document, CALL.cursor)
    completion = await typist.complete(CALL)
    assert completion.hits
    assert completion.stats["evaluated_tokens"] < 16
    assert ((await engine.missing(CALL.cursor, [None])).tokens[0] < 16) is both


async def test_a_slow_machine_reads_the_chunks_in_a_pause(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await supervisor.engine()).forget("")
    monkeypatch.setattr(cost, "BOTH_SECONDS", 0.0)
    monkeypatch.setattr(idle, "CALM", 0.0)
    typist = completer(supervisor, line_tokens=4, threshold=0.1)
    await typist.complete(replace(CALL, policy="never"))
    first = await typist.complete(CALL)
    assert first.decision is not None and first.decision.deferred
    assert first.hits == ()

    async def type_until_the_chunks_are_read() -> None:
        typed, hits = "", first.hits
        while not hits:
            await asyncio.sleep(1)  # in this pause, the prompt with the chunks is evaluated
            typed += "x"
            hits = (await typist.complete(at(MAIN + f"print(area_of_rectangle({typed}‸\n"))).hits

    await asyncio.wait_for(type_until_the_chunks_are_read(), 120)


async def test_never_does_not_even_search(supervisor: Supervisor) -> None:
    completion = await completer(supervisor, policy="never").complete(CALL)
    assert completion.text
    assert completion.hits == ()
    assert "retrieval" not in completion.timings_ms


async def test_the_gate_without_a_token_is_the_similarity(supervisor: Supervisor) -> None:
    low = await completer(supervisor, threshold=0.0).complete(CALL)
    high = await completer(supervisor, threshold=1.0).complete(CALL)
    assert low.decision is not None and high.decision is not None
    assert low.decision.source == high.decision.source == "similarity"
    assert low.decision.p_retrieve == high.decision.p_retrieve > 0
    assert (low.decision.retrieve, high.decision.retrieve) == (True, False)
    assert low.hits and not high.hits


async def test_trimmed_parts_are_named(supervisor: Supervisor) -> None:
    long = GEOMETRY + "".join(f"    height_in_metres += width_in_metres * {n}\n" for n in range(40))
    snapshot = Snapshot.of([("geometry.py", long)], root="/w")
    filled = Completer(supervisor, lambda: snapshot, CompletionSettings(policy="always", patience=60))
    before = "".join(f"metres_{n} = {n}\n" for n in range(200))
    completion = await filled.complete(at(f"{before}{MAIN}print(area_of_rectangle(‸\n"))
    assert completion.trimmed == ("left", "context")


async def test_an_abstained_request_reads_its_prompt_once(supervisor: Supervisor) -> None:
    await (await supervisor.engine()).forget("")
    completion = await completer(supervisor, threshold=1.0).complete(CALL)
    # The generation continues from the reading. One token is evaluated twice, because its logits are needed again.
    assert completion.stats["evaluated_tokens"] <= completion.stats["prompt_tokens"] + 1


async def test_the_policy_of_a_request_overrides_the_setting(supervisor: Supervisor) -> None:
    request = Request(CALL.cursor, CALL.document, policy="never")
    completion = await completer(supervisor, policy="always").complete(request)
    assert completion.decision is not None
    assert not completion.decision.retrieve


@pytest.mark.parametrize(("own", "calibrated", "counts"), [(None, 0.9, 0.9), (0.1, 0.9, 0.1), (0.0, 1.0, 0.0)])
async def test_a_threshold_in_the_settings_overrides_the_calibrated_one(
    supervisor: Supervisor, own: float | None, calibrated: float, counts: float
) -> None:
    request = Request(CALL.cursor, CALL.document, threshold=calibrated)
    decision = (await completer(supervisor, threshold=own, ahead=False).complete(request)).decision
    assert decision is not None
    assert decision.threshold == counts
    assert decision.retrieve is (decision.p_retrieve > counts)


async def test_inside_a_word_there_is_no_completion(supervisor: Supervisor) -> None:
    completion = await completer(supervisor).complete(at("pri‸nt()"))
    assert completion.text == ""
    assert completion.reason == "the cursor is inside a word"


async def test_without_an_index(supervisor: Supervisor) -> None:
    completion = await Completer(supervisor, lambda: None, CompletionSettings(policy="always")).complete(CALL)
    assert completion.text
    assert completion.hits == ()


async def test_cancelled_requests_leave_the_next_one_right(supervisor: Supervisor) -> None:
    complete = completer(supervisor, policy="always").complete
    await (await supervisor.engine()).forget("")
    expected = (await complete(CALL)).text
    await (await supervisor.engine()).forget("")
    for delay in (0.0, 0.02, 0.1, 0.3):
        task = asyncio.create_task(complete(CALL))
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert (await complete(CALL)).text == expected


async def test_the_prompt_of_the_next_line_is_read_in_advance(marked_model: Path) -> None:
    budgets = {"left": 256, "right": 64}
    supervisor = Supervisor(marked_model, EngineSettings(threads=2), layout="fim-spm", budgets=budgets)
    engine = await supervisor.engine()
    lines = [f"value_{number} = area_of_rectangle({number}, width_in_metres)\n" for number in range(26)]
    request = at("".join(lines) + "value = perimeter_of_rectangle(2, 3)‸\n")
    below = request.next_line("")
    typist = completer(supervisor, policy="never", line_tokens=1)

    async def unread(cursor: Cursor) -> int:
        return (await engine.missing(cursor, [None], Urgency(background=True))).tokens[0]

    await typist.complete(replace(request, ahead=False))
    assert await unread(below) > cost.FEW_TOKENS, "the line break must change the beginning of the prompt"
    at_cursor = await unread(request.cursor)
    await typist.complete(request)

    async def read_in_advance() -> None:
        while await unread(below) > cost.FEW_TOKENS:  # noqa: ASYNC110 (no event says that idle work has ended)
            await asyncio.sleep(0.2)

    await asyncio.wait_for(read_in_advance(), 60)
    assert await unread(request.cursor) <= at_cursor, "the prompt at the cursor must stay in the KV cache"
    await typist.close()
