"""Short prompts: on a machine that reads slowly, the model completes after one until it has read the whole prompt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from indexer.model import Chunk, Cursor
from indexer.snapshot import Snapshot
from policy.completion import cost, idle
from policy.completion.request import Completion, CompletionSettings, Request
from policy.completion.service import Completer
from policy.engine.client import Engine
from policy.engine.messages import GenerationRequest, Urgency
from policy.engine.settings import EngineSettings
from policy.engine.supervisor import Supervisor
from policy.engine.worker.prompts import SAVES
from policy.gating.decision import Policy
from policy.prompting.prompt import Budgets

pytestmark = pytest.mark.asyncio(loop_scope="module")

SMALL = EngineSettings(context_size=4096, threads=2)
BUDGETS = Budgets(256, 64, 128)
HALF = BUDGETS.fit(BUDGETS.tokens // 2)
BEFORE = "".join(f"def number_{n}(value):\n    return value * {n * 7919 % 101}\n\n\n" for n in range(40))
AFTER = "".join(f"\n\n\ndef text_{n}(value):\n    return str(value) + '{n * 31}'" for n in range(20))
LONG = Cursor("/w/numbers.py", f"{BEFORE}def number_40(", AFTER, "python")
FITS = Cursor("/w/small.py", "def number_1(value):\n    return ", "\n", "python")
CHUNKS = [
    Chunk("/w", f"file_{n}.py", 1, 3, f"def other_{n}(value):\n    other = value + {n}\n    return other\n", "function")
    for n in range(6)
]


async def generate(engine: Engine, cursor: Cursor, chunks: list[Chunk] | None = None) -> tuple[str, Any]:
    """Return the text of the request at `cursor`, and the statistics of its prompt."""
    generation = engine.generate(GenerationRequest("slot", cursor, chunks, 12))
    text = "".join([piece async for piece in generation])
    return text, generation.prompt


async def expected(model: Path, budgets: Budgets, chunks: list[Chunk] | None = None) -> str:
    """Return the text of an engine with these budgets and without short prompts."""
    supervisor = Supervisor(model, SMALL, budgets=asdict(budgets))
    try:
        return (await generate(await supervisor.engine(), LONG, chunks))[0]
    finally:
        await supervisor.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def supervisor(model: Path) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(model, SMALL, budgets=asdict(BUDGETS), parts=2)
    yield supervisor
    await supervisor.close()


@pytest_asyncio.fixture(loop_scope="module")
async def engine(supervisor: Supervisor) -> Engine:
    """The engine with short prompts, and an empty KV cache."""
    engine = await supervisor.engine()
    await engine.forget("")
    return engine


@pytest.mark.parametrize("chunks", [None, CHUNKS], ids=["plain", "retrieved"])
async def test_the_prompt_is_short_until_the_whole_one_is_read(
    engine: Engine, model: Path, chunks: list[Chunk] | None
) -> None:
    text, prompt = await generate(engine, LONG, chunks)
    assert prompt.short and prompt.prompt_tokens <= HALF.tokens + 8
    assert text == await expected(model, HALF, chunks)
    used = await engine.warm("slot", LONG, chunks)
    text, prompt = await generate(engine, LONG, chunks)
    assert not prompt.short and prompt.evaluated_tokens < 16
    assert prompt.chunks == used
    assert text == await expected(model, BUDGETS, chunks)


async def test_the_model_decides_after_the_prompt_that_it_generates_from(engine: Engine) -> None:
    reading = await engine.read("slot", LONG)
    _, prompt = await generate(engine, LONG)
    assert prompt.short and prompt.evaluated_tokens == 0
    assert reading.prompt_tokens == prompt.prompt_tokens


async def test_the_decision_of_an_invoked_completion_reads_the_whole_prompt(engine: Engine) -> None:
    await engine.read("slot", LONG, whole=True)
    missing = await engine.missing(LONG, [None], whole=True)
    assert missing.tokens[0] <= 2
    generation = engine.generate(GenerationRequest("slot", LONG, None, 4, whole=True))
    _ = [piece async for piece in generation]
    assert generation.prompt is not None and generation.prompt.evaluated_tokens == 0


async def test_work_in_advance_reads_a_prompt_again_that_is_no_longer_cached(engine: Engine) -> None:
    await engine.warm("slot", LONG)
    for number in range(20):
        other = Cursor(f"/w/{number}.py", f"value_{number} = {number}\n" * 100, LONG.suffix, "python")
        _ = [piece async for piece in engine.generate(GenerationRequest(f"other {number}", other, None, 1))]
        if (await engine.missing(LONG, [None], whole=True)).tokens[0] >= SAVES:
            break
    else:
        pytest.fail("the test has to replace the prompt")
    await engine.warm("slot", LONG)
    assert (await engine.missing(LONG, [None], whole=True)).tokens[0] <= 2


async def test_work_in_advance_reads_the_short_prompt_first(engine: Engine) -> None:
    await engine.warm("slot", LONG, whole=False)
    _, prompt = await generate(engine, LONG)
    assert prompt.short and prompt.evaluated_tokens == 0


async def test_a_key_evaluates_a_few_tokens_of_either_prompt(engine: Engine) -> None:
    for whole in (False, True):
        await engine.warm("slot", LONG, whole=whole)
        for typed in ("v", "va", "val", "val_"):
            key = Cursor(LONG.path, LONG.prefix + typed, LONG.suffix, LONG.language)
            _, prompt = await generate(engine, key)
            assert prompt.short != whole
            assert prompt.evaluated_tokens < 16


async def test_the_missing_tokens_are_those_of_the_prompt_that_a_request_uses(engine: Engine) -> None:
    missing = await engine.missing(LONG, [None, CHUNKS], Urgency())
    for chunks, tokens in zip((None, CHUNKS), missing.tokens, strict=True):
        await engine.forget("")
        _, prompt = await generate(engine, LONG, chunks)
        assert prompt.evaluated_tokens == tokens


async def test_a_file_that_fits_has_no_short_prompt(engine: Engine) -> None:
    _, prompt = await generate(engine, FITS)
    assert not prompt.short


async def test_an_invoked_completion_uses_the_whole_prompt(engine: Engine, supervisor: Supervisor) -> None:
    snapshot = Snapshot.of([(chunk.path, chunk.text) for chunk in CHUNKS], root="/w")
    settings = CompletionSettings(patience=60, line_tokens=4)
    typist = Completer(supervisor, lambda: snapshot, settings)
    for policy in ("never", "always"):
        await engine.forget("")
        request = Request(LONG, LONG.path, policy=policy, ahead=False)
        assert (await typist.complete(request)).short_prompt
        assert not (await typist.complete(replace(request, trigger="invoked"))).short_prompt


@pytest.mark.parametrize(
    ("policy", "chunks", "fast"),
    [
        ("never", CHUNKS, False),
        ("never", CHUNKS, True),
        ("always", CHUNKS, False),
        ("always", CHUNKS, True),
        ("always", [], False),
    ],
)
async def test_the_whole_prompt_is_read_in_a_pause(
    engine: Engine,
    supervisor: Supervisor,
    monkeypatch: pytest.MonkeyPatch,
    policy: Policy,
    chunks: list[Chunk],
    fast: bool,
) -> None:
    monkeypatch.setattr(cost, "BOTH_SECONDS", 1e6 if fast else 0.0)
    monkeypatch.setattr(idle, "CALM", 0.1)
    snapshot = Snapshot.of([(chunk.path, chunk.text) for chunk in chunks], root="/w")
    typist = Completer(supervisor, lambda: snapshot, CompletionSettings(policy=policy, patience=60, line_tokens=4))
    completion = await typist.complete(Request(LONG, LONG.path))
    assert completion.short_prompt
    used = len(completion.hits)

    async def type_until_the_whole_prompt_is_read() -> Completion:
        typed, completion = "", None
        while completion is None or completion.short_prompt:
            await asyncio.sleep(1)  # in this pause, the whole prompt is evaluated
            typed += "x"
            cursor = Cursor(LONG.path, LONG.prefix + typed, LONG.suffix, LONG.language)
            completion = await typist.complete(Request(cursor, LONG.path))
            assert completion.stats.get("evaluated_tokens", 0) <= SAVES, "a key waits for the whole prompt"
        return completion

    whole = await asyncio.wait_for(type_until_the_whole_prompt_is_read(), 120)
    assert len(whole.hits) > used or not chunks or policy == "never", "the short prompt has room for fewer chunks"


async def test_the_next_completion_is_generated_again_after_the_whole_prompt(
    engine: Engine, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "BOTH_SECONDS", 0.0)
    monkeypatch.setattr(idle, "CALM", 1.0)
    request = Request(LONG, LONG.path)
    for seconds in (5, 15, 45):  # a pause that is too short for this machine shows nothing
        await engine.forget("")
        typist = Completer(supervisor, lambda: None, CompletionSettings(policy="never", patience=60, line_tokens=4))
        completion = await typist.complete(request)
        assert completion.short_prompt and completion.text
        await asyncio.sleep(seconds)
        following = await typist.complete(request.after(completion.text))
        if following.stats.get("reused") and not following.short_prompt:
            return
    pytest.fail("the next completion is still that of the short prompt")
