"""`python -m benchmarks.identity FOLDER...`: compare texts with a used KV cache, an empty one, and a saved state.

The benchmark types keys at random places of the files of each FOLDER, into one model whose cache contains everything
from before: other files, retrieved code, generated text, prompts whose reading was interrupted. It then repeats every
request with an empty cache, and with an empty cache and the state that was saved during typing. The greedy texts, the
probabilities of the first tokens, and those of `<cc>` if the model has this token, must be equal bit for bit.
`tests/policy/test_identity.py` does the same for small models, in a test.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.machine import describe
from indexer.languages import language_of
from indexer.model import Chunk, Cursor
from policy.engine.process import environment_with
from policy.engine.settings import EngineSettings, default_threads
from policy.engine.worker.cache import Aborted
from policy.engine.worker.completion_model import CompletionModel, Done, Piece, longest_sequence
from policy.engine.worker.llama import Llama
from policy.engine.worker.saved_state import SavedStates
from policy.models import locate

BUDGETS = {"left": 128, "right": 48, "context": 96}  # small, because every prompt is read from its beginning twice
KEYS = 20  # keys at each place
SAVED_AT = 5  # the key after which the states are saved
TOKENS = 6  # tokens of each text
SHORTEST = 4_000  # characters; shorter files are left out
LIMIT = 1 << 30  # bytes of the saved states


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: the cursor, and the chunks of its prompt."""

    cursor: Cursor
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """P(`<cc>`), the probability of the first token without chunks, and the text with and without chunks."""

    p_cc: float | None
    first_p: float | None
    plain: str
    retrieved: str


def visits(folders: Sequence[Path], count: int, draw: random.Random) -> Iterator[list[Asked]]:
    """Yield `count` lists of requests, each with the keys at one place."""
    files = []
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and language_of(path.name)):
            text = path.read_text("utf-8", "replace")
            if len(text) >= SHORTEST:
                files.append((path, text))
    for _ in range(count):
        (path, text), (other, source) = draw.sample(files, 2)
        language = language_of(path.name)
        start = draw.randrange(len(text) // 4, len(text) - len(text) // 4)
        lines = source.split("\n")
        first = draw.randrange(max(1, len(lines) - 12))
        chunks = tuple(
            Chunk(str(other.parent), other.name, at + 1, at + 6, "\n".join(lines[at : at + 6]) + "\n", "block")
            for at in (first, first + 6)
        )
        yield [
            Asked(
                Cursor(str(path), text[: start + key], text[start + KEYS + 40 :], language.id if language else ""),
                chunks[: 1 + key // 8 % 2],
            )
            for key in range(KEYS)
        ]


def text_of(model: CompletionModel, slot: str, asked: Asked, chunks: tuple[Chunk, ...] | None) -> str:
    """Return the greedy text for a request."""
    text = ""
    for event in model.generate(slot, asked.cursor, chunks, TOKENS):
        if isinstance(event, Piece):
            text += event.text
        elif isinstance(event, Done):
            break
    return text


def answer(model: CompletionModel, asked: Asked) -> Answer:
    """Return the answer to a request."""
    reading = model.read("1/document#plain", asked.cursor)
    plain = text_of(model, "1/document#plain", asked, None)
    return Answer(reading.p_cc, reading.first_p, plain, text_of(model, "1/document#retrieved", asked, asked.chunks))


def interrupted(llama: Llama, model: CompletionModel, asked: Asked, seconds: float) -> None:
    """Read a prompt, and interrupt the reading after `seconds`."""
    timer = threading.Timer(seconds, llama.abort)
    timer.start()
    try:
        model.warm("1/document#retrieved", asked.cursor, asked.chunks)
        model.warm("1/document#plain", asked.cursor, None)
    except Aborted:
        pass
    finally:
        timer.join()
        llama.abort(False)


def type_keys(llama: Llama, model: CompletionModel, keys: list[Asked], draw: random.Random) -> list[Answer]:
    """Return the answers after each key. Some readings are interrupted, and the cursor moves back at times."""
    answers = []
    for number, asked in enumerate(keys):
        if draw.random() < 0.5:
            interrupted(llama, model, keys[min(number + draw.randrange(3), KEYS - 1)], draw.uniform(0.02, 0.4))
        if draw.random() < 0.1:
            answer(model, keys[max(0, number - draw.randrange(8))])
        answers.append(answer(model, asked))
        if number == SAVED_AT:
            while model.save(lambda: False):
                pass
    return answers


def compare(path: Path, folders: Sequence[Path], count: int, seed: int) -> None:
    """Compare the answers at `count` positions, and print the numbers of differences."""
    draw = random.Random(seed)
    settings = EngineSettings(context_size=8192, threads=default_threads())
    llama = Llama(path, settings, partial(longest_sequence, BUDGETS))
    print(f"{path.name}: the block has {llama.block} tokens", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        open_states = partial(SavedStates, "benchmark", LIMIT, print, Path(folder))
        used = CompletionModel(llama, "", BUDGETS, open_states())
        places = list(visits(folders, -(-count // KEYS), draw))
        began = time.monotonic()
        typed = [type_keys(llama, used, keys, draw) for keys in places]
        print(f"typing: {time.monotonic() - began:.0f} s, {used.work().read_tokens} tokens read", flush=True)
        for name, saved in (("an empty cache", False), ("a saved state", True)):
            began, different, tokens = time.monotonic(), 0, 0
            for keys, expected in zip(places, typed, strict=True):
                for asked, before in zip(keys, expected, strict=True):
                    llama.clear()
                    model = CompletionModel(llama, "", BUDGETS, open_states() if saved else None)
                    different += answer(model, asked) != before
                    tokens += model.work().read_tokens
            spent = time.monotonic() - began
            print(f"{name}: {different} of {len(typed) * KEYS} answers differ; {spent:.0f} s, {tokens} tokens read")
    llama.close()


def main() -> None:
    """Compare the answers of a model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.identity", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--model", default="", help="a GGUF file (default: the installed model)")
    parser.add_argument("--positions", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(describe())
    os.environ.update(environment_with({}))  # as in the worker process; ggml reads it when the library is loaded
    compare(locate.resolve(options.model).path, options.folders, options.positions, options.seed)


if __name__ == "__main__":
    main()
