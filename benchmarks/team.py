"""Let several users type at the same time, with completions of one OpenAI-compatible server.

    python -m benchmarks.team SERVER_URL [--prompt FAMILY] [--model NAME] [--typists N] [--words N] [--windows N]
        [--local-model FILE] [--json]

Each typist has a file with an identifier that no other file contains, and types words into it. Each key sends a change
and a request, and cancels the previous request, as in an editor. After each word, the typist waits for the answer to
the last request. The figures are the times of these answers.

An answer with another typist's identifier is *mixed up*. Answers with the typist's own identifier are counted too: if
there are none, the check shows nothing. By default, each typist has a process of this project's server. With
`--windows 1`, all typists share one process, and so one pool of connections.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.our_server import our_server, position
from benchmarks.screen import spread
from benchmarks.trace import INTERVAL
from lsp_server.client import Client, RefusedError
from policy.generators.text import FAMILIES

LOADING = 120  # the time limit for loading the local model, in seconds
ANSWER = 120  # the time limit for an answer, in seconds
IDENTIFIERS = tuple(
    map("".join, itertools.product(("quo", "zan", "vel", "mur"), ("rax", "dip", "tob", "lun"), ("ik", "em", "os")))
)
BEFORE = '''class {0}_store:
    """Stores {0}_items in memory."""

    def __init__(self, {0}_limit: int) -> None:
        self.{0}_limit = {0}_limit
        self.{0}_items: list[str] = []

    def add_{0}_item(self, {0}_item: str) -> None:
        '''
TYPED = """if len(self.{0}_items) >= self.{0}_limit:
            raise ValueError("too many {0}_items")
        self.{0}_items.append({0}_item)

    def count_{0}_items(self) -> int:
        return len(self.{0}_items)

    def remove_{0}_item(self, {0}_item: str) -> None:
        self.{0}_items.remove({0}_item)

    def first_{0}_item(self) -> str:
        return self.{0}_items[0]
"""
AFTER = "\n\nif __name__ == '__main__':\n    print({0}_store(3).count_{0}_items())\n"


@dataclass
class Counts:
    """What happened to the requests of all typists. `waited` has the times of the awaited answers in seconds."""

    requests: int = 0
    cancelled: int = 0
    empty: int = 0
    own: int = 0
    mixed_up: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    waited: list[float] = field(default_factory=list)
    messages: set[str] = field(default_factory=set)

    def figures(self) -> dict[str, Any]:
        """Return all counts as JSON values."""
        return {
            "requests": self.requests,
            "cancelled": self.cancelled,
            "answers": dict(self.models),
            "empty": self.empty,
            "with_own_identifier": self.own,
            "mixed_up": self.mixed_up,
            "errors": dict(self.errors),
            "messages": sorted(self.messages),
            "waited": spread(self.waited),
        }


class Typist:
    """A user who types `TYPED` into the document `uri` of an editor. `number` selects the identifier."""

    def __init__(self, client: Client, uri: str, number: int, counts: Counts) -> None:
        self._client, self._uri, self._counts = client, uri, counts
        self._identifier = IDENTIFIERS[number]
        self._others = re.compile("|".join(set(IDENTIFIERS) - {self._identifier}))
        self._dice = random.Random(number)
        self._version = 1
        self._text = BEFORE.format(self._identifier)
        client.open(uri, self._text + AFTER.format(self._identifier))

    async def type(self, words: int) -> None:
        """Type the first `words` words, and wait for an answer after each."""
        pieces = re.findall(r"\W*\w+", TYPED.format(self._identifier))
        for word in pieces[:words]:
            answers: list[tuple[int, asyncio.Task[float]]] = []
            for key in re.findall(r"\n[ \t]*|.", word):
                await asyncio.sleep(INTERVAL * self._dice.uniform(0.5, 1.5))
                if answers and not answers[-1][1].done():
                    self._client.cancel(answers[-1][0])
                answers.append(self._press(key))
            for _, answer in answers:
                await answer
            self._counts.waited.append(answers[-1][1].result())

    def _press(self, key: str) -> tuple[int, asyncio.Task[float]]:
        before = position(self._text)
        self._version += 1
        self._text += key
        self._client.edit(self._uri, self._version, before, before, key)
        started = time.perf_counter()
        number, answer = self._client.ask_completion(self._uri, position(self._text), invoked=False)
        self._counts.requests += 1
        return number, asyncio.create_task(self._answered(answer, started))

    async def _answered(self, answer: Any, started: float) -> float:
        """Count the answer to a request, and return its time in seconds."""
        counts = self._counts
        try:
            items = await asyncio.wait_for(answer, ANSWER)
        except RefusedError as error:
            if error.code == -32800:  # RequestCancelled
                counts.cancelled += 1
            else:
                counts.errors[str(error)] += 1
            return time.perf_counter() - started
        except asyncio.TimeoutError:  # on Python 3.10, this is not the built-in `TimeoutError`
            counts.errors["no answer"] += 1
            return time.perf_counter() - started
        seconds = time.perf_counter() - started
        text = "".join(item["insertText"] for item in items)
        counts.empty += not text
        counts.own += self._identifier in text
        counts.mixed_up += bool(self._others.search(text))
        counts.models[(await self._client.why(self._uri))["model"] or "none"] += 1
        return seconds


@contextlib.asynccontextmanager
async def window(root: Path, settings: dict[str, Any], model: str, counts: Counts) -> AsyncIterator[Client]:
    """Run this project's server for the folder `root`. At the end, add the messages to the user to `counts`."""
    async with our_server(root, model, settings, LOADING) as client:
        try:
            yield client
        finally:
            counts.messages |= {
                sent["params"]["message"] for sent in client.received if sent["method"] == "window/showMessage"
            }


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of all typists."""
    settings = {
        "generator": "openai",
        "serverUrl": options.server_url,
        "serverPrompt": options.prompt,
        "generatorModel": options.model,
        "policy": "never",  # so that this machine's model does not decide
        "suggest": "eager",
    }
    counts = Counts()
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        clients = []
        for number in range(options.windows or options.typists):
            (root := folder / f"window{number}").mkdir()
            client = await stack.enter_async_context(window(root, settings, options.local_model, counts))
            clients.append((client, root))
        typists = []
        for number in range(options.typists):
            client, root = clients[number % len(clients)]
            typists.append(Typist(client, (root / f"typist{number}.py").as_uri(), number, counts))
        await asyncio.gather(*(typist.type(options.words) for typist in typists))
    return counts.figures()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.team", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("server_url", metavar="SERVER_URL")
    parser.add_argument("--prompt", choices=tuple(FAMILIES), default="suffix", help="the setting serverPrompt")
    parser.add_argument("--model", default="", metavar="NAME", help="the setting generatorModel")
    parser.add_argument("--typists", type=int, default=8, choices=range(1, len(IDENTIFIERS) + 1), metavar="N")
    parser.add_argument("--words", type=int, default=20, metavar="N", help="words that each typist types")
    parser.add_argument("--windows", type=int, default=0, metavar="N", help="processes (default: one for each typist)")
    parser.add_argument("--local-model", default="", metavar="FILE", help="the model on this machine")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    figures = {"machine": describe()} | asyncio.run(measure(options))
    print(json.dumps(figures) if options.json else "\n".join(f"{name}: {value}" for name, value in figures.items()))
    return 0 if not figures["errors"] and not figures["mixed_up"] else 1


if __name__ == "__main__":
    sys.exit(main())
