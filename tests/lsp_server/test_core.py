"""The core finds and opens a model in the background, while requests arrive and settings change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from indexer.model import Cursor
from indexer.rules import Reason, why_private
from indexer.settings import IndexSettings
from indexer.workspace import Progress
from lsp_server.core import Core, supervisor_of
from lsp_server.settings import Settings
from policy.completion.request import Request
from policy.engine.settings import EngineSettings
from policy.engine.speed import Speed, Speeds
from policy.engine.supervisor import EngineState, Supervisor
from policy.errors import ModelError
from policy.generators import GeneratorProvider
from policy.models import locate
from policy.models.gguf import check_generator

LEFT = 'def order(name):\n    print(name)\n\n\norder("'  # any name could follow, so each text has a low probability


class Silent:
    """Ignores what the core reports."""

    def engine_changed(self, state: EngineState, model: str, problem: str) -> None: ...

    def indexing(self, progress: Progress) -> None: ...

    def notice(self, text: str) -> None: ...

    def generator_changed(self, problem: str) -> None: ...


def settings(**changes: object) -> Settings:
    model = str(locate.shipped()[0].path)
    return Settings(model=model, policy="never", threads=1, patience=60.0, **changes)  # type: ignore[arg-type]


@pytest.fixture
async def core() -> AsyncIterator[Core]:
    core = Core(Silent(), settings(suggest="eager"))
    yield core
    await core.close()


def request() -> Request:
    return Request(Cursor("main.py", LEFT, "\n", "python"), "main", ahead=False)


async def test_a_request_that_arrives_when_the_model_is_found_uses_the_settings(core: Core) -> None:
    """The first task that ends is the one that finds the model. The request starts before other code runs."""
    warming = asyncio.create_task(core.warm_up())
    running: set[asyncio.Task[object]] = set()
    while running <= asyncio.all_tasks():
        running = asyncio.all_tasks()
        await asyncio.sleep(0)
    assert not warming.done(), "the model was already loaded, so this test tests nothing"
    completion = await core.complete(request())
    assert completion.estimate is not None
    assert completion.estimate.suggest == "eager"
    assert completion.text
    await warming


@pytest.mark.parametrize("steps", [0, 1, 5, 50])
async def test_a_request_that_waits_for_the_model_is_answered_after_a_change_of_settings(
    core: Core, steps: int
) -> None:
    """A change of `contextSize` closes the engine for which the request waits."""
    waiting = asyncio.create_task(core.complete(request()))
    for _ in range(steps):
        await asyncio.sleep(0.001)
    await core.apply(settings(suggest="eager", context_size=1024))
    assert (await waiting).text


@pytest.mark.parametrize("error", [ModelError, asyncio.CancelledError])
async def test_a_generator_that_cannot_be_opened_leaves_no_engine(
    core: Core, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    closed: list[Supervisor] = []
    close = Supervisor.close

    async def record(supervisor: Supervisor) -> None:
        closed.append(supervisor)
        await close(supervisor)

    async def fail(_core: Core) -> GeneratorProvider:
        raise error("no generator")

    monkeypatch.setattr(Supervisor, "close", record)
    monkeypatch.setattr(Core, "_provider", fail)
    with pytest.raises(error):
        await core._engines()
    assert len(closed) == 1


@pytest.mark.parametrize(("read_ms", "parts"), [(1.0, 1), (200.0, 4)])
async def test_the_stored_speed_sets_the_length_of_short_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_ms: float, parts: int
) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_args, **_options: str(tmp_path))
    (model,) = locate.shipped()
    Speeds().remember(model.path, Speed(read_ms, 20.0), EngineSettings(threads=1))
    own = locate.budgets_of(model.path, check_generator(model.path))
    supervisor = await supervisor_of(model, settings(right_tokens=100), notice=print)
    assert supervisor.budgets == {**asdict(own), "right": 100}
    assert supervisor.parts == parts


async def test_a_file_that_is_excluded_while_the_rules_are_applied_is_private(
    core: Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text is then neither sent to a server nor saved, although the old rules allowed both."""
    server: dict[str, Any] = {"generator": "openai", "server_url": "http://127.0.0.1:9", "suggest": "eager"}
    await core.apply(settings(**server))
    core.set_roots([tmp_path])
    loop, calls = asyncio.get_running_loop(), 0

    def apply_old_rules(path: Path, roots: Sequence[Path], rules: IndexSettings) -> Reason | None:
        nonlocal calls
        calls += 1
        if calls == 1:
            changed = core.apply(settings(**server, exclude=("main.py",)))
            asyncio.run_coroutine_threadsafe(changed, loop).result()
        return why_private(path, roots, rules)

    monkeypatch.setattr("lsp_server.core.why_private", apply_old_rules)
    (tmp_path / "main.py").write_text(LEFT)
    asked = request()
    completion = await core.complete(replace(asked, cursor=replace(asked.cursor, path=str(tmp_path / "main.py"))))
    assert completion.withheld
    assert calls == 2
    assert completion.model == locate.name_of(locate.shipped()[0].path)
