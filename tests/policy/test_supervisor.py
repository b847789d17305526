"""What a supervisor tells of the engine it got."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from indexer.model import Cursor
from policy.engine import EngineSettings, Supervisor

CURSOR = Cursor("/w/b.py", "".join(f"value_{n} = {n * 7919}\n" for n in range(200)), "pass\n" * 200, "python")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals to die of")
async def test_budgets_that_the_context_does_not_hold_shrink_in_proportion_and_that_is_said_once(model: Path) -> None:
    notices: list[str] = []
    settings = EngineSettings(context_size=1024, threads=2)
    budgets = {"left": 400, "right": 200, "context": 200}
    supervisor = Supervisor(model, settings, budgets=budgets, notice=notices.append)
    engine = await supervisor.engine()
    assert supervisor.info is not None
    shrunk = supervisor.info.budgets
    assert shrunk.left == 2 * shrunk.right == 2 * shrunk.context > 0
    assert (await engine.read("a", CURSOR)).prompt_tokens <= 512 - 256, (
        "a sequence has half, most of which is for what it writes"
    )
    os.kill(engine.pid, signal.SIGKILL)
    await engine.ended
    await supervisor.engine()
    [told] = notices
    assert f"to {shrunk.left} tokens left of the cursor" in told
    await supervisor.close()


async def test_budgets_that_fit_are_nobodys_concern(model: Path) -> None:
    notices: list[str] = []
    budgets = {"left": 96, "right": 16, "context": 16}
    supervisor = Supervisor(model, EngineSettings(context_size=1024, threads=2), budgets=budgets, notice=notices.append)
    await supervisor.engine()
    assert notices == []
    await supervisor.close()
