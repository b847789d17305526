"""Measure how soon suggestions are visible while a user types, for the real server and for a simulation of llama.vim.

    python -m benchmarks.serving FOLDER [--llama-server PATH] [--places N] [--keys N] [--seed N] [--model FILE]
        [--suggest {eager,balanced,careful}] [--only NAME…] [--json]

The benchmark types a trace (`benchmarks.trace`) into files of FOLDER, once for each policy of the server. With
`--llama-server`, it types the same trace twice with llama.vim (`benchmarks.llama_vim`): with llama.vim's default number
of lines around the cursor, and with 48 lines above and 16 below. The systems run one after another. All get the same
keys at the same times, and use the same model file.

For each key, the benchmark does what an editor does: it cancels the previous request, sends the change, and sends a new
request, over stdio. `benchmarks.screen` defines the figures. The measurement *cancellation* has the time until the
engine is free after a request is cancelled.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import operator
import random
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, astuple, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from benchmarks.llama_vim import LlamaVim, llama_server
from benchmarks.machine import describe
from benchmarks.our_server import our_server, position
from benchmarks.screen import Screen, replay, seen, spread
from benchmarks.trace import Place, record
from indexer.model import Cursor
from lsp_server.client import Client, RefusedError
from lsp_server.core import supervisor_of
from lsp_server.settings import Settings
from policy.engine.client import Engine
from policy.engine.messages import GenerationRequest, Work
from policy.engine.settings import EngineSettings
from policy.engine.supervisor import Supervisor
from policy.errors import Preempted
from policy.gating.keep import Suggest
from policy.models import locate
from policy.models.gguf import check_generator

LOADING = 600  # the time limit for loading the model and indexing the folder, in seconds
CANCELLATIONS = 60  # the number of cancelled requests for each stage
# The maximum number of seconds from the start of a stage to the cancellation.
CANCELLED_AFTER = {"reading": 2.0, "reading the last tokens": 0.2, "writing": 0.5}
POLICIES = ("never", "always", "selective")
SMALL = (48, 16)  # the number of lines above and below the cursor


# -- this project's server --------------------------------------------------------------------------------------------


class ServerEditor:
    """An editor that sends requests to this project's server over stdio."""

    def __init__(self, client: Client, screen: Screen) -> None:
        self._client = client
        self._screen = screen
        self._version = 1
        self._text = ""
        self._request: tuple[int, asyncio.Task[None]] | None = None
        self.requests = self.cancelled = 0
        self.answers: list[tuple[float, dict[str, Any]]] = []

    async def enter(self, place: Place) -> None:
        """Open the file of a place, with the cursor at the place."""
        self._version, self._text = 1, ""
        self._client.open(place.path.as_uri(), place.prefix + place.suffix, place.language)
        at = position(place.prefix)
        focus = {"textDocument": {"uri": place.path.as_uri()}, "position": {"line": at[0], "character": at[1]}}
        self._client.notify("textDocument/didFocus", focus)

    def key(self, place: Place, typed: str) -> None:
        """Cancel the previous request, send the change, and request a completion."""
        uri = place.path.as_uri()
        if self._request is not None and not self._request[1].done():
            self._client.cancel(self._request[0])
        before = position(place.prefix + self._text)
        self._version += 1
        if typed.startswith(self._text):
            self._client.edit(uri, self._version, before, before, typed[len(self._text) :])
        else:
            self._client.edit(uri, self._version, position(place.prefix + typed), before, "")
        self._text = typed
        number, answer = self._client.ask_completion(uri, position(place.prefix + typed), invoked=False)
        self.requests += 1
        self._request = number, asyncio.create_task(self._answered(uri, place.prefix + typed, answer))

    async def leave(self, place: Place) -> None:
        """Close the file after the last request is answered."""
        if self._request is not None:
            await self._request[1]
        self._client.close_document(place.path.as_uri())

    async def _answered(self, uri: str, before: str, answer: Awaitable[list[dict[str, Any]]]) -> None:
        number, started = len(self._screen.strokes), time.perf_counter()
        try:
            items = await answer
        except RefusedError:
            self.cancelled += 1
            return
        seconds = time.perf_counter() - started
        if number == len(self._screen.strokes):
            _, column = position(before)
            texts = [item["insertText"][column - item["range"]["start"]["character"] :] for item in items]
            self._screen.show(texts[0] if texts else "")
        self.answers.append((seconds, await self._client.why(uri)))

    def figures(self) -> dict[str, Any]:
        """Return figures of the requests: their number, the shares of several kinds of answers, and their times."""
        reused = [(spent, why) for spent, why in self.answers if why["stats"].get("reused")]
        joined = [why for _, why in self.answers if why["stats"].get("joined")]
        made = [
            (spent, why)
            for spent, why in self.answers
            if "generation" in why["timings_ms"] and not why["stats"].get("joined")
        ]
        times = [why["timings_ms"] for _, why in made]
        tokens = sorted(why["stats"]["evaluated_tokens"] for _, why in made)
        return {
            "requests": self.requests,
            "cancelled": round(self.cancelled / self.requests, 3),
            "from_cache": round(len(reused) / max(1, len(self.answers)), 3),
            "joined": round(len(joined) / max(1, len(self.answers)), 3),
            "retrieved": round(sum(why["decision"]["retrieve"] for _, why in made) / max(1, len(made)), 3),
            "made": spread([spent for spent, _ in made]),
            "evaluated_tokens": _tokens(tokens),
            "own_share": spread([_own(each) / 1e3 for each in times]),
            "queue": spread([each["queue"] / 1e3 for each in times]),
            "held_back": round(sum("pause" in each for each in times) / max(1, len(times)), 3),
            "typed_through": spread([why["timings_ms"]["total"] / 1e3 for _, why in reused]),
            "typed_through_client": spread([spent for spent, _ in reused]),
        }

    def work(self, done: Work, keys: int) -> dict[str, Any]:
        """Return the engine's work `done` while `keys` keys were typed, for each 1,000 keys.

        `read_unseen` and `written_unseen` are the shares of the tokens that are not part of an answer, but of work in
        advance or of cancelled requests.
        """
        read, written = (
            sum(why["stats"].get(name, 0) for _, why in self.answers if not why["stats"].get("reused"))
            for name in ("evaluated_tokens", "generated_tokens")
        )
        return {
            "engine_seconds": round(done.seconds * 1e3 / keys, 1),
            "read_tokens": round(done.read_tokens * 1e3 / keys),
            "written_tokens": round(done.written_tokens * 1e3 / keys),
            "read_unseen": round(1 - read / max(1, done.read_tokens), 3),
            "written_unseen": round(1 - written / max(1, done.written_tokens), 3),
        }


def _own(timings: Mapping[str, float]) -> float:
    """Return the time outside llama.cpp. While a request is in the worker's queue, llama.cpp runs another one."""
    return timings["total"] - timings["model"] - timings["queue"] - timings.get("pause", 0.0)


def _tokens(counts: Sequence[int]) -> dict[str, int] | None:
    if not counts:
        return None
    return {"p50": counts[len(counts) // 2], "p95": counts[min(len(counts) - 1, int(len(counts) * 0.95))]}


async def measure_server(
    root: Path, model: locate.ModelFile, policy: str, suggest: str, places: Sequence[Place]
) -> dict[str, Any]:
    screen = Screen()
    async with our_server(root, str(model.path), {"policy": policy, "suggest": suggest}, LOADING) as client:
        # A second client of the same engine, which has the same settings, asks for the work that it did.
        supervisor = await supervisor_of(model, Settings(model=str(model.path)), notice=print)
        engine = await supervisor.engine()
        before = await engine.work()
        editor = ServerEditor(client, screen)
        await replay(places, editor, screen)
        after = await engine.work()
        await supervisor.close()
    done = Work(*map(operator.sub, astuple(after), astuple(before)))
    return seen(screen.strokes) | editor.figures() | editor.work(done, len(screen.strokes))


async def measure_cancellation(model: locate.ModelFile, places: Sequence[Place]) -> dict[str, Any]:
    """Cancel requests at random moments. Return the percentiles of the time until the engine is free, by stage.

    The stages are the reading of a prompt of which nothing is in the KV cache, the reading of its last tokens while the
    others are in the cache (as after a keystroke), and the writing.
    """
    own = locate.budgets_of(model.path, check_generator(model.path))
    supervisor = Supervisor(model.path, EngineSettings(), budgets=asdict(own))
    engine = await supervisor.engine()
    dice = random.Random(0)
    cursors = [Cursor(str(place.path), place.prefix, place.suffix, place.language) for place in places]
    found = {}
    for stage, longest in CANCELLED_AFTER.items():
        times: list[float] = []
        for number in range(3 * CANCELLATIONS):
            if len(times) == CANCELLATIONS:
                break
            cursor = cursors[number % len(cursors)]
            writing = asyncio.Event()
            if stage == "reading":
                await engine.forget("")
            elif number < len(cursors):
                await engine.read(cursor.path, cursor)
            if stage == "reading the last tokens":
                # The engine remembers the reading of a prompt, so each prompt ends differently.
                cursor = replace(cursor, prefix=f"{cursor.prefix}v{number}")
            working = asyncio.create_task(_work(engine, cursor, stage, writing))
            if stage == "writing":
                await writing.wait()
            await asyncio.sleep(dice.uniform(0.005, longest))
            if working.done():  # it ended before this moment, which is not a cancellation
                continue
            started = time.perf_counter()
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            await engine.forget("unused")
            times.append(time.perf_counter() - started)
        found[stage] = spread(times)
    await supervisor.close()
    return found


async def _work(engine: Engine, cursor: Cursor, stage: str, writing: asyncio.Event) -> None:
    """Read or generate. Set `writing` when the first text arrives, and when the work ends."""
    with contextlib.suppress(Preempted):
        if stage == "writing":
            async for _ in engine.generate(GenerationRequest(cursor.path, cursor, None, 256)):
                writing.set()
        else:
            await engine.read(cursor.path, cursor)
    writing.set()


# -- llama.vim --------------------------------------------------------------------------------------------------------


class LlamaVimEditor:
    """The simulation of llama.vim as an `Editor`."""

    def __init__(self, vim: LlamaVim) -> None:
        self._vim = vim

    async def enter(self, place: Place) -> None:
        """Open the file of a place, with the cursor at the place."""
        self._vim.enter(place.path.name, place.prefix, place.suffix)

    def key(self, place: Place, typed: str) -> None:
        """Handle a key. `typed` is all the text typed at the place so far, this key included."""
        self._vim.key(place.prefix + typed, place.suffix)

    async def leave(self, place: Place) -> None:
        """Save and close the file."""
        self._vim.save_and_leave()

    def figures(self) -> dict[str, Any]:
        """Return figures of the requests: their number, their times, and the numbers of evaluated prompt tokens."""
        answers = self._vim.answers
        return {
            "requests": len(answers),
            "made": spread([(each["prompt_ms"] + each["predicted_ms"]) / 1e3 for each in answers]),
            "evaluated_tokens": _tokens(sorted(each["prompt_n"] for each in answers)),
        }


async def measure_llama_vim(
    program: Path, model: Path, places: Sequence[Place], lines: tuple[int, int]
) -> dict[str, Any]:
    screen = Screen()
    async with llama_server(program, model, _free_port()) as server:
        vim = LlamaVim(server, screen.show, *lines)
        editor = LlamaVimEditor(vim)
        await replay(places, editor, screen)
        await vim.close()
    return seen(screen.strokes) | editor.figures()


# -- all systems ----------------------------------------------------------------------------------------------------


Measure = Callable[[], Coroutine[Any, Any, dict[str, Any]]]


def measures(options: argparse.Namespace, model: locate.ModelFile, places: Sequence[Place]) -> dict[str, Measure]:
    """Return the functions that perform the measurements, by name."""
    root: Path = options.folder.resolve()
    found: dict[str, Measure] = {
        policy: partial(measure_server, root, model, policy, options.suggest, places) for policy in POLICIES
    }
    found["cancellation"] = partial(measure_cancellation, model, places)
    if options.llama_server:
        llama_vim = partial(measure_llama_vim, options.llama_server, model.path, places)
        found["llama.vim"] = partial(llama_vim, (LlamaVim.n_prefix, LlamaVim.n_suffix))
        found["llama.vim, 48 + 16 lines"] = partial(llama_vim, SMALL)
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def summary(name: str, result: dict[str, Any]) -> str:
    """Return the figures of a measurement as a text of several lines."""
    if "in_time" not in result:
        return "\n".join(f"{name}, {stage}: {_range(each)}" for stage, each in result.items())
    rows = [
        f"{name}: in time {result['in_time']:.1%} of {result['keys']} keys, visible after "
        + _range(result["seen_after"])
    ]
    rows += [
        f"    {title} {_range(result[key]) if isinstance(result[key], dict) else result[key]}"
        for key, title in (
            ("nothing_to_say", "keys with an empty answer in time"),
            ("pauses", "pauses"),
            ("pauses_shown", "share of pauses that end with a suggestion"),
            ("pauses_answered", "share of pauses that end with an answer"),
            ("pause_shown_after", "suggestion visible in a pause after"),
            ("kept", "share of characters shown correctly before they were typed"),
            ("es", "ES"),
            ("requests", "requests"),
            ("cancelled", "share of cancelled requests"),
            ("from_cache", "share of answers from the cache"),
            ("joined", "share of answers that joined an earlier request"),
            ("retrieved", "share of generated answers that retrieved"),
            ("held_back", "share of generated answers that were delayed"),
            ("made", "time of a generated answer"),
            ("evaluated_tokens", "prompt tokens evaluated"),
            ("engine_seconds", "engine seconds for 1,000 keys"),
            ("read_tokens", "prompt tokens for 1,000 keys"),
            ("written_tokens", "generated tokens for 1,000 keys"),
            ("read_unseen", "share of these prompt tokens that no answer needed itself"),
            ("written_unseen", "share of these generated tokens that are in no answer"),
            ("queue", "time in the worker's queue"),
            ("own_share", "time outside llama.cpp and the queue"),
            ("typed_through", "reused answer, in the server"),
            ("typed_through_client", "reused answer, for the client"),
        )
        if result.get(key) is not None
    ]
    return "\n".join(rows)


def _range(spread: dict[str, Any] | None) -> str:
    if spread is None:
        return "-"
    unit = " ms" if "p50_ms" in spread else ""
    p50, p95 = (spread.get(f"{name}_ms", spread.get(name)) for name in ("p50", "p95"))
    return f"p50 {p50}{unit}, p95 {p95}{unit}" + (f" ({spread['n']})" if "n" in spread else "")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--llama-server", type=Path, metavar="PATH", help="the program llama-server, to compare with")
    parser.add_argument("--places", type=int, default=6)
    parser.add_argument("--keys", type=int, default=45, help="approximate number of keys per place")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="", metavar="FILE")
    parser.add_argument("--suggest", default="balanced", choices=get_args(Suggest), help="the setting `suggest`")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="measurements to run, such as selective or llama.vim")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    model = locate.resolve(options.model)
    places = record(options.folder.resolve(), options.places, options.keys, options.seed)
    header = {"machine": describe(), "model": locate.name_of(model.path), "places": len(places)}
    print(json.dumps(header) if options.json else f"{header['machine']}\n{header['model']}", flush=True)
    for name, measure in measures(options, model, places).items():
        if not options.only or name.split(",")[0] in options.only:
            result = asyncio.run(measure())
            print(json.dumps({name: result}) if options.json else summary(name, result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
