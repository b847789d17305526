"""What a supervisor reports about its engine, and with which settings it starts the engine."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from indexer.model import Cursor
from policy.engine.settings import EngineSettings
from policy.engine.supervisor import Supervisor
from policy.errors import EngineUnavailable

CURSOR = Cursor("/w/b.py", "".join(f"value_{n} = {n * 7919}\n" for n in range(200)), "pass\n" * 200, "python")


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
async def test_too_large_budgets_shrink_in_proportion_and_this_is_reported_once(model: Path) -> None:
    notices: list[str] = []
    settings = EngineSettings(context_size=1024, threads=2)
    budgets = {"left": 400, "right": 200, "context": 200}
    supervisor = Supervisor(model, settings, budgets=budgets, notice=notices.append)
    engine = await supervisor.engine()
    assert supervisor.info is not None
    shrunk = supervisor.info.budgets
    assert shrunk.left == 2 * shrunk.right == 2 * shrunk.context > 0
    assert (await engine.read("a", CURSOR)).prompt_tokens <= 512 - 256, (
        "the prompt needs cells that are reserved: a sequence has 512 cells, and 256 are for generated text"
    )
    os.kill(engine.pid, signal.SIGKILL)
    await engine.ended
    await supervisor.engine()
    [notice] = notices
    assert f"{shrunk.left} tokens before the cursor" in notice
    await supervisor.close()


async def test_budgets_that_fit_are_not_reported(model: Path) -> None:
    notices: list[str] = []
    budgets = {"left": 96, "right": 16, "context": 16}
    supervisor = Supervisor(model, EngineSettings(context_size=1024, threads=2), budgets=budgets, notice=notices.append)
    await supervisor.engine()
    assert notices == []
    await supervisor.close()


async def test_settings_that_llama_cpp_rejects_are_reported_with_its_reason(model: Path) -> None:
    settings = EngineSettings(context_size=1024, threads=2, kv_cache_type="q8_0", flash_attention="off")
    supervisor = Supervisor(model, settings)
    with pytest.raises(EngineUnavailable, match=r"rejects these settings: .*flash_attn"):
        await supervisor.engine()
    assert supervisor.state == "failed"
    await supervisor.close()


# This module simulates a GPU with memory for nine layers of the model. Python imports the module at the start of every
# process that has the module's folder in PYTHONPATH.
CROWDED_GPU = """
import sys
if any("policy.engine.worker" in argument for argument in sys.orig_argv):
    from policy.engine.worker.native import load as open_library
    native = open_library()
    load, log_set = native.llama_model_load_from_file, native.llama_log_set
    logs = []
    def remembering_log_set(callback, data):
        logs.append(callback)
        log_set(callback, data)
    def crowded_load(path, params):
        if params.n_gpu_layers > 9:
            logs[-1](4, b"ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory", None)
            logs[-1](4, b"llama_model_load_from_file_impl: failed to load model", None)
            return None
        return load(path, params)
    native.llama_model_load_from_file, native.llama_log_set = crowded_load, remembering_log_set
"""


@pytest.mark.parametrize(("layers", "fits"), [(12, "gpu_layers 12 → 6"), (30, "gpu_layers 30 → 0")])
async def test_a_gpu_that_is_too_small_gets_fewer_layers(model: Path, tmp_path: Path, layers: int, fits: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(CROWDED_GPU)
    log: list[str] = []
    notices: list[str] = []
    memory = tmp_path / "engine.json"
    supervisor = Supervisor(
        model,
        EngineSettings(context_size=1024, threads=2, gpu_layers=layers),
        layers=30,
        memory=memory,
        environment={"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
        log=log.append,
        notice=notices.append,
    )
    engine = await supervisor.engine()
    assert (await engine.read("a", CURSOR)).prompt_tokens
    assert fits in notices[0] and "Not enough GPU memory" in notices[0]
    assert "cudaMalloc failed" in log[0] or "failed to load model" in log[0]
    # The number of layers is not stored, because the GPU may have more free memory at the next start.
    assert not memory.exists()
    await supervisor.close()
