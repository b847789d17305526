"""`python -m benchmarks.engine [MODEL]`: measure llama.cpp on this machine's processor and GPU.

One run measures both: the speed of reading a prompt and of generating, the time of a decision at a new position and
after a keystroke, and the loading time. Prompts come from this repository's sources. A build without GPU support
reports that instead. `make gpu` compiles llama.cpp for CUDA first.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.machine import describe
from indexer.model import Cursor
from policy.engine.client import Engine
from policy.engine.messages import GenerationRequest, ModelInfo
from policy.engine.settings import ALL_LAYERS, EngineSettings
from policy.engine.supervisor import Supervisor
from policy.models import locate

ROOT = Path(__file__).resolve().parent.parent
TOKENS = 64  # per generation
KEYS = 8  # per place


def places(count: int) -> list[tuple[Cursor, str]]:
    """Return cursors in the middle of this project's longest modules, each with the text that follows."""
    files = sorted(ROOT.glob("policy/**/*.py"), key=lambda path: -path.stat().st_size)[:count]
    chosen = []
    for path in files:
        text = path.read_text("utf-8")
        middle = text.index("\n", len(text) // 2) + 1
        chosen.append((Cursor(str(path), text[:middle], text[middle + KEYS :], "python"), text[middle : middle + KEYS]))
    return chosen


async def measure(model: Path, settings: EngineSettings, count: int) -> tuple[ModelInfo, dict[str, list[float]]]:
    """Return information about the loaded model, and figures by name in tokens per second or milliseconds."""
    started = time.perf_counter()
    supervisor = Supervisor(model, settings)
    engine = await supervisor.engine()
    figures: dict[str, list[float]] = {"load, ms": [(time.perf_counter() - started) * 1e3]}
    for cursor, typed in places(count):
        await engine.forget("")
        reading = await engine.read("place", cursor)
        figures.setdefault("decision at a new place, ms", []).append(reading.prefill_ms)
        figures.setdefault("prompt, tokens/s", []).append(reading.evaluated_tokens / reading.prefill_ms * 1e3)
        for end in range(1, len(typed) + 1):
            reading = await engine.read("place", replace(cursor, prefix=cursor.prefix + typed[:end]))
            figures.setdefault("decision after a keystroke, ms", []).append(reading.prefill_ms)
        if rate := await decode_rate(engine, cursor):
            figures.setdefault("generation, tokens/s", []).append(rate)
    assert supervisor.info is not None
    await supervisor.close()
    return supervisor.info, figures


async def decode_rate(engine: Engine, cursor: Cursor) -> float | None:
    """Return tokens per second between the first and the last piece, or None if the model ended early."""
    generation = engine.generate(GenerationRequest("place", cursor, None, TOKENS))
    first = last = 0.0
    async for _ in generation:
        last = time.perf_counter()
        first = first or last
    return (generation.tokens - 1) / (last - first) if generation.tokens > 8 else None


def percentile(values: list[float], share: float) -> float:
    """Return the value that a share of the values does not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def main() -> None:
    """Measure without and with the GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("model", nargs="?", default="", help="a GGUF file; the default model otherwise")
    parser.add_argument("--places", type=int, default=8)
    options = parser.parse_args()
    model = locate.resolve(options.model).path
    print(f"{describe()}\n{model.name}, {model.stat().st_size / 1e6:.0f} MB")
    for name, layers in (("processor", 0), ("GPU", ALL_LAYERS)):
        info, figures = asyncio.run(measure(model, EngineSettings(gpu_layers=layers), options.places))
        if layers and not info.gpu_offload:
            print("GPU: this build of llama.cpp cannot use a GPU; run `make gpu` to compile one that can")
            return
        for what, values in figures.items():
            print(f"{name:10} {what:32} p50 {percentile(values, 0.5):9.1f}  p95 {percentile(values, 0.95):9.1f}")


if __name__ == "__main__":
    main()
