"""The torch engine generates the same completions as llama.cpp."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

from benchmarks.tiny_llama import write_tiny_llama
from indexer.model import Chunk, Cursor
from policy.engine.messages import Stop, Trial, Tried
from policy.engine.settings import EngineSettings
from policy.engine.supervisor import Supervisor
from policy.evaluation import cli, record, table
from policy.evaluation.runner import Generator
from policy.evaluation.torch_engine import LANES, TorchEngine
from policy.models import locate
from policy.training.compute import Compute
from policy.training.manifest import TrainingError
from tests.evaluation.masked import SHOP, repoeval_row, unpack, write_jsonl
from tests.marked import mark

BUDGETS = {"left": 96, "right": 32, "context": 64}
CELLS = 512
CHUNK = Chunk("/w", "shapes.py", 1, 2, "def area_of(width, height):\n    return width * height\n", "function")


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    architecture: Literal["llama", "qwen2"] = request.param
    plain = write_tiny_llama(tmp_path_factory.mktemp("model") / f"{architecture}.gguf", architecture)
    marked = plain.with_name("marked.gguf")
    mark(plain, marked, "fim-spm")
    return marked


def trials() -> list[Trial]:
    """Return twice as many trials as the engine has lanes, so that some wait for a lane.

    The prompts have many lengths. Some begin with the same text, and others do not.
    """
    found = []
    for number in range(LANES):
        prefix = "def total(order):\n" + f"    x{number} = order.width\n" * (number % 5) + "    return area_of(ord"
        cursor = Cursor("/w/order.py", prefix, ")\n" * (1 + number % 3), "python")
        stop, truth = Stop(3 + number % 4), "er.width, order.height)"[: 3 + number]
        found += [Trial(cursor, chunks, stop, truth) for chunks in (None, [CHUNK])]
    return found


async def tried(generator: Generator, wanted: Sequence[Trial]) -> list[Tried]:
    ended = dict([each async for each in (await generator.engine()).try_all(wanted)])
    await generator.close()
    return [ended[number] for number in range(len(wanted))]


async def test_torch_gives_the_logits_of_llama_cpp(tiny: Path) -> None:
    wanted = trials()
    supervisor = Supervisor(tiny, EngineSettings(context_size=8 * CELLS, sequences=8, threads=1), budgets=BUDGETS)
    expected = await tried(supervisor, wanted)
    results = await tried(TorchEngine(tiny, BUDGETS, CELLS, Compute()), wanted)
    for own, other in zip(results, expected, strict=True):
        assert own.truth is not None and other.truth is not None
        assert own.truth.tokens == other.truth.tokens
        assert own.truth.nats == pytest.approx(other.truth.nats, rel=1e-3)
        assert own.prompt.prompt_tokens == other.prompt.prompt_tokens
        assert own.prompt.chunks == other.prompt.chunks
        assert (own.reading is None) == (other.reading is None)
        if own.reading is not None and other.reading is not None:
            # The values differ a little, because llama.cpp rounds the values in its KV cache to 16 bits.
            assert own.reading.first_p == pytest.approx(other.reading.first_p, abs=5e-3)
            assert own.reading.first_entropy == pytest.approx(other.reading.first_entropy, rel=5e-3)


async def test_the_texts_and_the_decision_of_a_real_model_are_the_same() -> None:
    """The built-in model is trained to decide, and its weights are quantized.

    With quantized weights, llama.cpp rounds activations and torch does not. So the probabilities differ a little.
    """
    shipped = locate.shipped()[0].path
    wanted = trials()[:8]
    supervisor = Supervisor(shipped, EngineSettings(context_size=4 * CELLS, sequences=4, threads=1), budgets=BUDGETS)
    expected = await tried(supervisor, wanted)
    results = await tried(TorchEngine(shipped, BUDGETS, CELLS, Compute()), wanted)
    assert [own.completed.text for own in results] == [other.completed.text for other in expected]
    for own, other in zip(results[::2], expected[::2], strict=True):
        assert own.reading is not None and other.reading is not None
        assert own.reading.p_cc == pytest.approx(other.reading.p_cc, rel=0.1)


def test_a_run_of_eval_uses_torch(tmp_path: Path) -> None:
    blanks = unpack(SHOP, tmp_path / "repos" / "acme_shop")
    rows = [repoeval_row(blank, "acme_shop", number) for number, blank in enumerate(blanks)]
    data = write_jsonl(tmp_path / "line_level.jsonl", rows)
    results = {}
    for name, torch in (("llama", []), ("torch", ["--torch", "float32"])):
        parser = argparse.ArgumentParser()
        cli.register(parser.add_subparsers(required=True))
        options = parser.parse_args([
            "eval", "--dataset", "repoeval", "--data", str(data), "--repos", str(tmp_path / "repos"),
            "--out", str(tmp_path / name), "--latency", "0", "--tokens", "8",
            "--model", str(locate.shipped()[0].path), *torch,
        ])  # fmt: skip
        assert options.run(options) == 0
        (results[name],) = table.read(tmp_path / name / record.RESULTS)
    assert record.read_run(tmp_path / "torch")["torch"] == "float32"
    assert results["torch"].without == results["llama"].without
    assert results["torch"].nll_with == pytest.approx(results["llama"].nll_with, rel=0.05)


def test_an_architecture_that_torch_cannot_read_is_an_error(tmp_path: Path) -> None:
    import gguf

    file = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(file, "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(TrainingError, match="mamba"):
        TorchEngine(file, {}, CELLS, Compute())
