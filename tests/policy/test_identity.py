"""The content of the KV cache does not change results, no matter which client filled the cache.

Each test types keys into a file twice and compares the results. The first time, two clients of one engine use
everything that saves time: prompts that are partly in the cache, branches with a common prefix, evaluation in advance,
and text that was generated before. The second time, every prompt is evaluated with an empty cache.
"""

from __future__ import annotations

from pathlib import Path

from indexer.model import Chunk, Cursor
from policy.engine.client import Engine
from policy.engine.messages import GenerationRequest
from policy.engine.settings import EngineSettings
from policy.engine.supervisor import Supervisor
from policy.models import locate
from tests.marked import mark

SOURCE = Path(locate.__file__).read_text("utf-8")
KEYS = 200
HEALED_KEYS = 60
BUDGETS = {"left": 64, "right": 16, "context": 48}
SETTINGS = EngineSettings(context_size=4096, threads=2)
CHUNKS = [
    Chunk("/w", "sizes.py", 1, 2, "def size_of(path):\n    return path.stat().st_size\n", "function"),
    Chunk("/w", "errors.py", 1, 2, "class ModelMissing(Exception):\n    pass\n", "class"),
]
TOKENS = 4


def at(key: int) -> Cursor:
    start, end = len(SOURCE) // 3, len(SOURCE) // 3 + 400
    return Cursor("/w/models.py", SOURCE[: start + key], SOURCE[end:], "python")


def chunks_of(key: int) -> list[Chunk] | None:
    """Return the chunks in the prompt after a key. They change every five keys: none, both, none, only the first."""
    return {0: None, 1: CHUNKS, 2: None, 3: CHUNKS[:1]}[key // 5 % 4]


async def answer_at(engine: Engine, slot: str, key: int) -> tuple[float | None, float | None, str]:
    """Return P(`<cc>`), the probability of the first generated token, and the generated text after `key` keys."""
    reading = await engine.read(f"{slot}#plain", at(key))
    chunks = chunks_of(key)
    branch = f"{slot}#{'retrieved' if chunks else 'plain'}"
    text = "".join([piece async for piece in engine.generate(GenerationRequest(branch, at(key), chunks, TOKENS))])
    return reading.p_cc, reading.first_p, text


async def test_a_text_does_not_depend_on_the_cache() -> None:
    await check(locate.shipped()[0].path, KEYS)


async def test_a_healed_text_does_not_depend_on_the_cache(model: Path, tmp_path: Path) -> None:
    """The layout `fim-spm` has no decision, and the model generates the last word before the cursor again."""
    marked = tmp_path / "model.gguf"
    mark(model, marked, "fim-spm")
    await check(marked, HEALED_KEYS)


async def check(model: Path, keys: int) -> None:
    """Type `keys` keys with the cache, then with an empty cache. Fail if a probability or a text differs."""
    windows = [Supervisor(model, SETTINGS, budgets=BUDGETS) for _ in range(2)]
    engines = [await window.engine() for window in windows]
    assert engines[0].pid == engines[1].pid
    saving = []
    for key in range(keys):
        engine = engines[key // 7 % 2]
        if key % 3 == 0:
            await engine.warm("document#plain", at(key))
        if key % 11 == 0:
            await answer_at(engine, "document", max(0, key - 20))  # the cursor moves to another place and back
        saving.append(await answer_at(engine, "document", key))
    evaluated = (await engines[0].read("document#plain", at(keys - 1))).evaluated_tokens
    assert evaluated <= 4, "the cache saved nothing"

    for key, expected in enumerate(saving):
        await engines[0].forget("")
        await engines[1].forget("")
        assert await answer_at(engines[0], "document", key) == expected, f"key {key}"
    for window in windows:
        await window.close()
