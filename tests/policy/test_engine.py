"""The engine with a real model: savings of the KV cache, cancellations, batches, and crashes."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from indexer.model import Chunk, Cursor
from policy.engine.client import Engine
from policy.engine.messages import GenerationRequest, Stop, Trial, Tried, Urgency
from policy.engine.settings import EngineSettings, difference, fallbacks
from policy.engine.supervisor import Supervisor
from policy.errors import EngineDied, EngineFailed, ModelInvalid, ModelMissing, Preempted
from policy.prompting.prompt import Budgets

pytestmark = pytest.mark.asyncio(loop_scope="module")

SMALL = EngineSettings(context_size=4096, threads=2)
BUDGETS = {"left": 256, "right": 64, "context": 128}
SOURCE = "import os\n\n\ndef size_of(path):\n    return os.stat(path)."
CURSOR = Cursor("/w/sizes.py", SOURCE, "\n", "python")
CHUNK = Chunk("/w", "walk.py", 1, 2, "def size_of(path):\n    return os.stat(path).st_size\n", "function")


def typed(text: str) -> Cursor:
    return Cursor(CURSOR.path, SOURCE + text, CURSOR.suffix, CURSOR.language)


async def text_of(engine: Engine, slot: str, cursor: Cursor, chunks: list[Chunk] | None = None) -> tuple[str, Any]:
    generation = engine.generate(GenerationRequest(slot, cursor, chunks, 12))
    return "".join([piece async for piece in generation]), generation


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def supervisor(model: Path) -> AsyncIterator[Supervisor]:
    """A supervisor for all tests of the module, because most tests take less time than loading the model."""
    supervisor = Supervisor(model, SMALL, budgets=BUDGETS)
    yield supervisor
    await supervisor.close()


async def test_the_engine_reports_its_model(supervisor: Supervisor) -> None:
    await supervisor.engine()
    assert supervisor.info is not None
    assert supervisor.info.metadata["general.architecture"] == "llama"
    assert supervisor.info.budgets == Budgets(**BUDGETS)
    # 4096 cells hold five sequences. Each has enough cells for the longest prompt, rounded up to a multiple of 256.
    assert supervisor.info.context_size == 5 * 768


async def test_generating_continues_from_the_reading(supervisor: Supervisor) -> None:
    engine = await supervisor.engine()
    await engine.forget("")
    reading = await engine.read("a", CURSOR)
    _, generation = await text_of(engine, "a", CURSOR)
    assert reading.evaluated_tokens == reading.prompt_tokens
    assert generation.prompt.evaluated_tokens == 0


async def test_a_keystroke_evaluates_a_few_tokens(supervisor: Supervisor) -> None:
    engine = await supervisor.engine()
    await engine.read("a", CURSOR)
    await text_of(engine, "a", CURSOR)
    for end in range(1, 8):
        reading = await engine.read("a", typed("st_size"[:end]))
        assert reading.evaluated_tokens < 16


async def test_the_engine_counts_its_work(supervisor: Supervisor) -> None:
    engine = await supervisor.engine()
    await engine.forget("")
    before = await engine.work()
    _, generation = await text_of(engine, "a", CURSOR)
    await text_of(engine, "a", CURSOR)  # nothing is evaluated again
    after = await engine.work()
    assert after.read_tokens - before.read_tokens == generation.prompt.evaluated_tokens
    assert after.written_tokens - before.written_tokens == generation.tokens - 1, "the last token is not evaluated"
    assert after.seconds > before.seconds


async def test_reuse_does_not_change_the_text(supervisor: Supervisor) -> None:
    engine = await supervisor.engine()
    await engine.forget("")
    cursors = [typed("st_mtime"[:end]) for end in range(9)]
    warm = [await text_of(engine, "one slot", cursor, [CHUNK] if n % 2 else None) for n, cursor in enumerate(cursors)]
    for n, cursor in enumerate(cursors):
        await engine.forget("")
        cold, _ = await text_of(engine, f"slot {n}", cursor, [CHUNK] if n % 2 else None)
        assert cold == warm[n][0]


async def test_several_candidates(supervisor: Supervisor) -> None:
    engine = await supervisor.engine()
    greedy, _ = await text_of(engine, "a", CURSOR, [CHUNK])
    texts: dict[int, str] = {}
    async for number, piece in engine.generate(GenerationRequest("a", CURSOR, [CHUNK], 12, candidates=3)).pieces():
        texts[number] = texts.get(number, "") + piece
    assert sorted(texts) == [0, 1, 2]
    assert len(set(texts.values())) == 3
    assert texts[0] == greedy
    again, _ = await text_of(engine, "a", CURSOR, [CHUNK])
    assert again == greedy, "the candidates changed the cache"


async def test_background_work_is_interrupted(supervisor: Supervisor) -> None:
    engine = await supervisor.engine()
    await engine.forget("")
    long = Cursor("", "".join(f"x_{n} = {n * 7919}\n" for n in range(80)), "", "python")
    warming = asyncio.create_task(engine.warm("b", long))
    await asyncio.sleep(0.1)
    expected, _ = await text_of(engine, "a", CURSOR)
    with pytest.raises(Preempted):
        await warming
    await engine.forget("")
    assert (await text_of(engine, "a", CURSOR))[0] == expected


async def test_a_warmed_prompt_is_not_evaluated_again(supervisor: Supervisor) -> None:
    engine = await supervisor.engine()
    await engine.forget("")
    await engine.warm("a", CURSOR)
    assert (await engine.read("a", CURSOR)).evaluated_tokens == 0
    await engine.warm("b", CURSOR, [CHUNK])
    _, generation = await text_of(engine, "b", CURSOR, [CHUNK])
    assert generation.prompt.evaluated_tokens == 2


async def test_older_chunks_stay_in_the_cache_when_newer_ones_are_read(supervisor: Supervisor) -> None:
    """A key can arrive before the server learns that newer chunks were read. It uses the older ones."""
    engine = await supervisor.engine()
    await engine.forget("")
    other = replace(CHUNK, path="disk.py", text="def free_space(disk):\n    return os.statvfs(disk).f_bavail\n")
    await text_of(engine, "a", CURSOR, [CHUNK])
    await engine.warm("a", CURSOR, [other])
    for chunk in (CHUNK, other, CHUNK):
        _, generation = await text_of(engine, "a", CURSOR, [chunk])
        assert generation.prompt.evaluated_tokens <= 2


async def test_a_request_becomes_background(supervisor: Supervisor) -> None:
    engine = await supervisor.engine()
    urgency = Urgency()
    generation = engine.generate(GenerationRequest("a", typed("st_"), None, 400), urgency)
    with pytest.raises(Preempted):
        async for _ in generation:
            urgency.change(background=True)
            await engine.read("b", CURSOR)
    assert generation.tokens < 400


async def test_the_same_prompt_gives_the_same_text(supervisor: Supervisor) -> None:
    engine = await supervisor.engine()
    await engine.forget("")
    first, _ = await text_of(engine, "a", CURSOR)
    for number in range(20):  # fill the cache with other text
        await engine.read(f"other {number}", typed(f"a{number}"))
    again, generation = await text_of(engine, "b", CURSOR)
    assert (again, generation.prompt.evaluated_tokens) == (first, 0)


async def test_retrieved_chunks_are_in_the_prompt(supervisor: Supervisor) -> None:
    engine = await supervisor.engine()
    _, plain = await text_of(engine, "plain", CURSOR)
    _, retrieved = await text_of(engine, "retrieved", CURSOR, [CHUNK])
    assert plain.prompt.chunks == ()
    assert [used.index for used in retrieved.prompt.chunks] == [0]
    assert retrieved.prompt.context_tokens > 10


async def test_more_documents_than_the_context_holds(model: Path) -> None:
    supervisor = Supervisor(model, replace(SMALL, context_size=512), budgets={"left": 96, "right": 16, "context": 32})
    engine = await supervisor.engine()
    first, _ = await text_of(engine, "document 0", CURSOR)
    for number in range(1, 20):  # more tokens than the cache has cells, and more documents than it has sequences
        text = "".join(f"value_{number}_{line} = {line}\n" for line in range(16))
        await engine.read(f"document {number}", Cursor("", text, "", "python"))
    again, _ = await text_of(engine, "document 0", CURSOR)
    await supervisor.close()
    assert again == first


async def test_leaving_early_frees_the_engine(supervisor: Supervisor) -> None:
    engine = await supervisor.engine()
    generation = engine.generate(GenerationRequest("a", CURSOR, None, 400))
    iterator = aiter(generation)
    await anext(iterator)
    await iterator.aclose()
    text, _ = await asyncio.wait_for(text_of(engine, "b", CURSOR), 60)
    assert text
    assert generation.tokens < 400


async def test_cancelling_a_prefill_leaves_a_valid_cache(supervisor: Supervisor) -> None:
    engine = await supervisor.engine()
    long = Cursor("", "".join(f"x_{n} = {n}\n" for n in range(80)), "", "python")
    expected, _ = await text_of(engine, "undisturbed", long)
    await engine.forget("")
    for delay in (0.01, 0.05, 0.1, 0.2):
        await engine.forget("")
        reading = asyncio.create_task(engine.read("disturbed", long))
        await asyncio.sleep(delay)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    text, _ = await text_of(engine, "disturbed", long)
    assert text == expected


async def test_a_killed_engine_fails_its_request_and_is_replaced(supervisor: Supervisor) -> None:
    engine = await supervisor.engine()
    pid = engine.pid
    long = Cursor("", "".join(f"x_{n} = {n * 7919}\n" for n in range(400)), "", "python")
    reading = asyncio.create_task(engine.read("a", long))
    await asyncio.sleep(0.05)
    os.kill(pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
    with pytest.raises(EngineDied, match="SIGKILL"):
        await reading
    engine = await supervisor.engine()
    assert engine.pid != pid
    text, _ = await text_of(engine, "a", CURSOR)
    assert text


async def all_of(engine: Engine, trials: Sequence[Trial]) -> list[Tried]:
    found = {number: tried async for number, tried in engine.try_all(trials)}
    assert sorted(found) == list(range(len(trials)))
    return [found[number] for number in range(len(trials))]


async def test_a_batch_generates_what_one_at_a_time_does(supervisor: Supervisor) -> None:
    engine = await supervisor.engine()
    wanted = [
        (cursor, chunks)
        for cursor in (CURSOR, typed("st_"), typed("st_size\n\n\ndef sizes_of(paths):\n    return [size_"), CURSOR)
        for chunks in (None, [CHUNK])
    ]
    alone = [await text_of(engine, f"alone {number}", *each) for number, each in enumerate(wanted)]
    # The batch has fewer lanes than trials. The trials end at different lengths, so each lane runs several of them.
    settings = replace(SMALL, context_size=3 * 768, sequences=3)
    several = Supervisor(supervisor.model, settings)
    limits = [12, 5, 9, 12, 7, 12, 1, 12]
    tried = await all_of(
        await several.engine(), [Trial(*each, Stop(limit)) for each, limit in zip(wanted, limits, strict=True)]
    )
    await several.close()
    # In a batch of several rows, llama.cpp adds numbers in another order than for one row. So if two tokens are almost
    # equally probable, the choice may differ, and only the first characters are compared.
    for each, (text, _), limit in zip(tried, alone, limits, strict=True):
        assert text.startswith(each.completed.text[:4])
        assert each.completed.tokens == limit or each.completed.ended
        assert len(each.completed.surprises) == each.completed.tokens
    assert [each.reading is None for each in tried] == [False, True] * 4
    reading = tried[0].reading
    assert reading is not None and reading.first_p is not None
    assert math.isclose(tried[0].completed.surprises[0], -math.log(reading.first_p), abs_tol=1e-3)


async def test_a_batch_also_reads_the_decision(marked_model: Path) -> None:
    settings = replace(SMALL, context_size=4 * 768, sequences=4)
    one, several = Supervisor(marked_model, SMALL), Supervisor(marked_model, settings)
    reading = await (await one.engine()).read("a", CURSOR)
    text, _ = await text_of(await one.engine(), "a", CURSOR)
    trials = [Trial(CURSOR, None, Stop(8)), Trial(CURSOR, [CHUNK], Stop(8)), Trial(CURSOR, None, Stop(8))]
    plain, rich, again = await all_of(await several.engine(), trials)
    await one.close()
    await several.close()
    assert plain.reading is not None and plain.reading.p_cc is not None and reading.p_cc is not None
    assert plain.reading.p_cc == reading.p_cc
    # The reading also has the probability of the first token, for gates that use more than P(<cc>).
    assert plain.reading.first_p is not None and reading.first_p is not None
    assert plain.reading.first_p == reading.first_p
    assert math.isclose(plain.completed.surprises[0], -math.log(plain.reading.first_p), abs_tol=1e-3)
    assert plain.reading.first_entropy is not None
    assert plain.reading.first_entropy == reading.first_entropy
    assert plain.reading.prompt_tokens == reading.prompt_tokens == plain.prompt.prompt_tokens
    assert text.startswith(plain.completed.text[:4])
    assert rich.reading is None and rich.prompt.context_tokens > 0
    # In the second run, the cache has the prompt, except for the token of the decision and the token after it.
    assert again.prompt.evaluated_tokens == 2
    assert again.completed.text == plain.completed.text


async def test_a_trial_that_does_not_fit_is_refused_after_those_that_did(supervisor: Supervisor) -> None:
    engine = await supervisor.engine()
    ended = []
    with pytest.raises(EngineFailed, match="do not fit"):
        async for number, _ in engine.try_all([Trial(CURSOR, None, Stop(1)), Trial(CURSOR, None, Stop(5000))]):
            ended.append(number)
    assert ended == [0]


async def test_a_batch_is_stopped_by_leaving_it(supervisor: Supervisor) -> None:
    engine = await supervisor.engine()
    async with contextlib.aclosing(engine.try_all([Trial(CURSOR, None, Stop(40))] * 6)) as tries:
        await anext(tries)
    text, _ = await text_of(engine, "after", CURSOR)
    assert text


@pytest.mark.parametrize(
    ("stop", "text", "reached"),
    [
        (Stop(9, lines=1), "return 1", False),
        (Stop(9, lines=1), "return 1\n", True),
        (Stop(9, lines=1), "\n\n    return 1", False),
        (Stop(9, lines=1), "\n\n    return 1\n", True),
        (Stop(9, lines=2), "a\nb", False),
        (Stop(9, indent=4), "a = 1\n    b = 2\n\n    return", False),
        (Stop(9, indent=4), "a = 1\n    b = 2\n\ndef", False),
        (Stop(9, indent=4), "a = 1\n    b = 2\n\ndef f():\n", True),
    ],
)
async def test_a_generation_of_a_batch_ends_at_its_limits(stop: Stop, text: str, reached: bool) -> None:
    assert stop.reached(text) is reached


# This module simulates a llama.cpp build with instructions that the CPU does not have. The process ends at its first
# evaluation if, and only if, the weights were repacked. Python imports the module at the start of every process that
# has the module's folder in PYTHONPATH.
FAULTY_BUILD = """
import sys
if any("policy.engine.worker" in argument for argument in sys.orig_argv):
    import os, signal
    from policy.engine.worker.native import load as open_library
    native = open_library()
    load, decode = native.llama_model_load_from_file, native.llama_decode
    repacked = []
    def faulty_load(path, params):
        repacked.append(params.use_extra_bufts)
        return load(path, params)
    def faulty_decode(context, batch):
        if repacked[-1]:
            os.kill(os.getpid(), signal.SIGILL)
        return decode(context, batch)
    native.llama_model_load_from_file, native.llama_decode = faulty_load, faulty_decode
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
async def test_a_build_that_crashes_is_run_with_safer_parameters(model: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAULTY_BUILD)
    log: list[str] = []
    notices: list[str] = []

    async def run() -> str:
        path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
        supervisor = Supervisor(
            model,
            SMALL,
            budgets=BUDGETS,
            memory=tmp_path / "engine.json",
            environment={"PYTHONPATH": path},
            log=log.append,
            notice=notices.append,
        )
        text, _ = await text_of(await supervisor.engine(), "a", CURSOR)
        await supervisor.close()
        return text

    assert await run()
    assert any("SIGILL" in line for line in log)
    assert len(notices) == 1
    assert "extra_buffers True → False" in notices[0]
    log.clear()
    # The next start uses the stored settings that work, so nothing crashes and nothing is reported.
    assert await run()
    assert not any("SIGILL" in line for line in log)
    assert len(notices) == 1


async def test_no_model(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "none.gguf", SMALL)
    with pytest.raises(ModelMissing, match="repoformer-lsp model list"):
        await supervisor.engine()
    await supervisor.close()


async def test_a_file_that_is_not_a_model(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 64)
    supervisor = Supervisor(path, SMALL)
    with pytest.raises(ModelInvalid, match="cannot load"):
        await supervisor.engine()
    await supervisor.close()


async def test_a_layout_that_the_model_has_no_tokens_for(model: Path) -> None:
    supervisor = Supervisor(model, SMALL, layout="repoformer")
    with pytest.raises(ModelInvalid, match="needs tokens that this model lacks: prefix, suffix, middle, eof, cc"):
        await supervisor.engine()
    await supervisor.close()


async def test_the_fallback_settings() -> None:
    steps = list(fallbacks(EngineSettings(), layers=30))
    assert [(step.extra_buffers, step.gpu_layers) for step in steps] == [
        (True, -1),
        (False, -1),
        (False, 15),
        (False, 0),
    ]
    assert list(fallbacks(EngineSettings(gpu_layers=0, extra_buffers=False), layers=30)) == [
        EngineSettings(gpu_layers=0, extra_buffers=False)
    ]
    assert difference(steps[0], steps[2]) == "gpu_layers -1 → 15, extra_buffers True → False"
