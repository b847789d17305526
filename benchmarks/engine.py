"""`python -m benchmarks.engine [MODEL...]`: measure how fast each installed llama.cpp library runs a model.

Each library runs the model on the processor and, if the library supports a GPU, on the GPU. The benchmark measures the
speeds of evaluating a prompt and of generating, the time of a decision at a new place and after a keystroke, and the
time of loading the model. The prompts are from the sources of this repository. In each of the `--rounds` rounds, every
library runs once, so that other load on the machine affects all libraries. `make native` compiles a library for this
machine, and `make gpu` one for CUDA.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.machine import describe
from indexer.model import Cursor
from policy.engine.client import Engine
from policy.engine.libraries import Candidate, candidates
from policy.engine.memory import size_of
from policy.engine.messages import GenerationRequest, ModelInfo
from policy.engine.settings import ALL_LAYERS, EngineSettings
from policy.engine.supervisor import Supervisor
from policy.models import locate

ROOT = Path(__file__).resolve().parent.parent
TOKENS = 64  # the number of tokens in a generation
KEYS = 8  # the number of keystrokes at each place


def places(count: int) -> list[tuple[Cursor, str]]:
    """Return `count` cursors, each with the text of the `KEYS` keystrokes after it.

    The cursors are in the middle of the largest modules of this project.
    """
    files = sorted(ROOT.glob("policy/**/*.py"), key=lambda path: -path.stat().st_size)[:count]
    chosen = []
    for path in files:
        text = path.read_text("utf-8")
        middle = text.index("\n", len(text) // 2) + 1
        chosen.append((Cursor(str(path), text[:middle], text[middle + KEYS :], "python"), text[middle : middle + KEYS]))
    return chosen


async def measure(model: Path, settings: EngineSettings, count: int) -> tuple[ModelInfo, dict[str, list[float]]]:
    """Load and run a model. Return information about it, and the measured values by name.

    A value is in tokens per second or in milliseconds, as its name says.
    """
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
    """Return the speed of a generation in tokens per second, without the time to its first token.

    Return None if the model generates eight tokens or fewer.
    """
    generation = engine.generate(GenerationRequest("place", cursor, None, TOKENS))
    first = last = 0.0
    async for _ in generation:
        last = time.perf_counter()
        first = first or last
    return (generation.tokens - 1) / (last - first) if generation.tokens > 8 else None


def percentile(values: list[float], share: float) -> float:
    """Return a percentile of the values. `share` is in [0, 1]."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def compare(model: Path, libraries: Sequence[Candidate], count: int, rounds: int) -> None:
    """Measure every library on the processor and on the GPU, and print the figures."""
    found: dict[str, dict[str, list[float]]] = {}
    for _round in range(rounds):
        for library in libraries:
            settings = EngineSettings(gpu_layers=0, library=str(library.path))
            info, figures = await measure(model, settings, count)
            measured = {"processor": figures}
            if info.gpu_offload:
                _info, measured["GPU"] = await measure(model, replace(settings, gpu_layers=ALL_LAYERS), count)
            for device, figures in measured.items():
                kept = found.setdefault(f"{library.origin}, {device}", {})
                for what, values in figures.items():
                    kept.setdefault(what, []).extend(values)
    for name, kept in found.items():
        print(f"\n{name}")
        for what, values in kept.items():
            p50, p95 = percentile(values, 0.5), percentile(values, 0.95)
            print(f"  {what:32} p50 {p50:9.1f}  p95 {p95:9.1f}  best {best(what, values):9.1f}")


def best(what: str, values: list[float]) -> float:
    """Return the best value: the highest speed, or the shortest time. `what` is the name with the unit."""
    return max(values) if what.endswith("/s") else min(values)


def main() -> None:
    """Measure each model with each library."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument(
        "models", nargs="*", default=[""], metavar="MODEL", help="GGUF files (default: the installed model)"
    )
    parser.add_argument("--places", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(describe())
    for name in options.models:
        model = locate.resolve(name).path
        print(f"\n{model.name}, {size_of(model) / 1e6:.0f} MB")
        asyncio.run(compare(model, candidates(), options.places, options.rounds))


if __name__ == "__main__":
    main()
