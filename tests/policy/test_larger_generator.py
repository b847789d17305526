"""A larger GGUF model generates, and the local model decides.

In these tests, a model with the markers of a Repoformer decides, and a copy of it without markers generates.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from indexer.model import Cursor
from indexer.snapshot import Snapshot
from policy.completion.request import CompletionSettings, Request
from policy.completion.service import Completer
from policy.engine.settings import EngineSettings
from policy.engine.supervisor import Supervisor
from policy.generators.larger import Larger

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = EngineSettings(context_size=1024, threads=2)
BUDGETS = {"left": 256, "right": 64, "context": 128}
LIBRARY = "def area_of_rectangle(width, height):\n    return width * height\n"
CALL = Cursor("/w/main.py", "from geometry import area_of_rectangle\n\nprint(area_of_rectangle(", ")\n", "python")


def completer(decides: Supervisor, provider: Larger | None, **settings: object) -> Completer:
    snapshot = Snapshot.of([("geometry.py", LIBRARY)], root="/w")
    return Completer(decides, lambda: snapshot, CompletionSettings(**settings), provider)  # type: ignore[arg-type]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def policy(marked_model: Path) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(marked_model, SETTINGS, budgets=BUDGETS)
    yield supervisor
    await supervisor.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def larger(model: Path) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(model, SETTINGS, budgets=BUDGETS)
    yield supervisor
    await supervisor.close()


@pytest.mark.parametrize("threshold", [0.0, 1.0], ids=["retrieve", "abstain"])
async def test_one_decides_and_the_other_writes(policy: Supervisor, larger: Supervisor, threshold: float) -> None:
    problems: list[str] = []
    provider = Larger(larger, problems.append)
    await provider.warm_up()
    completion = await completer(policy, provider, threshold=threshold).complete(Request(CALL, "a", "invoked"))
    alone = completer(larger, None, policy="never" if threshold else "always")
    expected = await alone.complete(Request(CALL, "b", "invoked"))
    assert completion.decision is not None and completion.decision.source == "token"
    assert completion.decision.retrieve is (threshold == 0.0)
    assert (completion.text, completion.model) == (expected.text, larger.model.stem)
    assert bool(completion.hits) is (threshold == 0.0)
    assert problems == [""]


async def test_the_generating_model_evaluates_chunks_in_advance(policy: Supervisor, larger: Supervisor) -> None:
    provider = Larger(larger, lambda problem: None)
    await provider.warm_up()
    always = completer(policy, provider, policy="always")
    await always.warm("ahead", CALL)
    completion = await always.complete(Request(CALL, "ahead"))
    assert [hit.chunk.path for hit in completion.hits] == ["geometry.py"]
    assert (completion.model, completion.stats["evaluated_tokens"]) == (larger.model.stem, 2)


async def test_the_cancelled_generation_frees_its_engine(policy: Supervisor, larger: Supervisor) -> None:
    provider = Larger(larger, lambda problem: None)
    await provider.warm_up()
    for number in range(5):
        request = Request(CALL, f"document {number}", "invoked")
        await completer(policy, provider, threshold=0.0, line_tokens=400).complete(request)
    engine = await larger.engine()
    while engine._pending:  # noqa: ASYNC110  # the last cancellation may be unanswered yet; the timeout fails the test
        await asyncio.sleep(0.01)
    await provider.forget("document 1#")


async def test_no_request_waits_for_the_larger_model(policy: Supervisor, model: Path) -> None:
    loading = Supervisor(model, EngineSettings(context_size=512, threads=1), budgets={"left": 64, "right": 32})
    provider = Larger(loading, lambda problem: None)
    engine = await policy.engine()
    assert provider.generator(engine) is engine, "the local model does not generate"
    await asyncio.gather(provider.warm_up())  # wait for the larger model, which `generator` has begun to load
    assert provider.generator(engine) is await loading.engine()
    await provider.close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
async def test_a_larger_model_that_died_is_loaded_again(policy: Supervisor, larger: Supervisor) -> None:
    provider = Larger(larger, lambda problem: None)
    await provider.warm_up()
    assert larger.pid is not None
    os.kill(larger.pid, signal.SIGKILL)
    before, engine = larger.running, await policy.engine()
    while larger.running is before:  # noqa: ASYNC110  # a supervisor does not report that it has another engine
        await asyncio.sleep(0.01)
    assert provider.generator(engine) in (engine, larger.running), "the engine that died generates"
    await provider.warm_up()
    completion = await completer(policy, provider, threshold=1.0).complete(Request(CALL, "d", "invoked"))
    assert completion.model == larger.model.stem


async def test_a_generator_that_does_not_fit(policy: Supervisor, model: Path, tmp_path: Path) -> None:
    little = "import psutil\nfree = psutil.virtual_memory()._replace(available=10_000_000)\n"
    (tmp_path / "sitecustomize.py").write_text(little + "psutil.virtual_memory = lambda: free\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    problems: list[str] = []
    provider = Larger(Supervisor(model, SETTINGS, environment={"PYTHONPATH": path}), problems.append)
    await provider.warm_up()
    completion = await completer(policy, provider).complete(Request(CALL, "c", "invoked"))
    assert completion.model == policy.model.stem, "the local model does not generate"
    assert "GB are free. Choose a smaller model" in problems[0]
    await provider.close()
    assert set(problems) == {problems[0]}
