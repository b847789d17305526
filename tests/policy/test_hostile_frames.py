"""An engine receives malformed frames. `benchmarks.hostile_frames` does the same with 10,000 frames."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from benchmarks.hostile_frames import assault
from policy.engine.client import Engine
from policy.engine.settings import EngineSettings


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_client_is_answered_after_every_hundred_malformed_frames(model: Path, seed: int) -> None:
    name = f"{seed:016}"
    engine = await Engine.connect(name, dict(os.environ), lambda _line: None)
    try:
        await engine.load(model, EngineSettings(context_size=1024, threads=2))
        memory = await assault(engine, name, 300, seed)
        assert len(memory) == 3
        assert memory[-1] - memory[0] < 30e6, "bytes"
        assert psutil.pid_exists(engine.pid)
    finally:
        await engine.close()
