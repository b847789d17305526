"""Check that two servers with one engine stay correct during long use, and that they leak no memory, process or file.

Usage: `python -m benchmarks.soak [--scale SHARE] [--model FILE]`. Scale 1 is 100 rounds with 5,000 files.

Each of the two servers belongs to a simulated editor window. In each round, both windows type a trace fast and save the
file, a workspace folder is added or removed, a setting changes, and the engine is killed. In every fifth round, all
files are rewritten, as by a switch between two branches. After each round, the benchmark starts a third server, which
must return the same completion, with the same chunks, as both others. After the last round, no process, lock or
temporary file may be left.

The benchmark prints a row for each round. Its exit status is 1 if a check fails. The default model is tiny and has
random weights, so most of the time is spent in the servers and not in the engine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from benchmarks.machine import describe
from benchmarks.tiny_llama import write_tiny_llama
from benchmarks.trace import Place, record
from lsp_server.client import Client

ROUNDS, FILES = 100, 5_000  # the numbers of rounds and of files at scale 1
SWITCH_EVERY = 5  # the number of rounds from one switch of the branch to the next
SETTLING = 120.0  # the seconds after which all servers must agree; until then, they index and start engines
GROWTH = 1.15  # the limit of a server's memory at the end, relative to the maximum in the first tenth of the rounds
KEYS = 80  # the approximate number of keys in a trace
PAUSE = 0.03  # the mean time between two keys in seconds
_SOURCE = Path(__file__).parent.parent  # the folder of the code that the windows type: this project
_PROBE = "from branch import compute\n\n\ndef probed(total):\n    return compute_{number}("


def write_branch(root: Path, files: int, branch: int) -> None:
    """Write all files of the workspace, with the content that they have on a branch."""
    for number in range(files):
        file = root / f"package{number // 100}" / f"module{number}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            f"def compute_{number}(total, branch={branch}):\n    scaled = total * {number + branch}\n"
            "    return scaled\n"
        )


class Window:
    """A simulated editor window with its own server. It types traces, and counts the keys and the answers."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.keys = self.answered = 0
        self._draw = random.Random(0)

    async def type(self, place: Place, file: Path) -> None:
        """Type a trace fast, with a request after each key, and then save and close the file."""
        uri, version, typed = file.as_uri(), 1, ""
        self.client.open(uri, place.prefix + place.suffix, place.language)
        line, column = place.prefix.count("\n"), len(place.prefix.rpartition("\n")[2])
        answers = []
        for state in place.states():
            version += 1
            end = _after(line, column, typed)
            self.client.edit(uri, version, (line, column), end, state)
            typed = state
            answers.append(self.client.ask_completion(uri, _after(line, column, typed), invoked=False)[1])
            self.keys += 1
            await asyncio.sleep(self._draw.expovariate(1 / PAUSE))
        results = await asyncio.gather(*answers, return_exceptions=True)
        self.answered += sum(not isinstance(result, BaseException) for result in results)
        await asyncio.to_thread(file.write_text, place.prefix + typed + place.suffix, "utf-8")
        self.client.close_document(uri)
        self.client.received.clear()

    async def probe(self, file: Path, text: str) -> tuple[list[str], list[Any]]:
        """Return the texts of the completion at the end of `text`, and the chunks in its prompt with their scores."""
        uri = file.as_uri()
        self.client.open(uri, text)
        items = await self.client.complete(uri, (text.count("\n"), len(text.rpartition("\n")[2])))
        why = await self.client.request("repoformer/why", {"textDocument": {"uri": uri}}) or {}
        self.client.close_document(uri)
        return [item["insertText"] for item in items], why.get("chunks", [])

    def memory(self) -> int:
        """Return the resident memory of the server's process in bytes. Its child processes are not included."""
        assert self.client.process is not None
        return int(psutil.Process(self.client.process.pid).memory_info().rss)


def _after(line: int, column: int, typed: str) -> tuple[int, int]:
    breaks = typed.count("\n")
    return line + breaks, len(typed.rpartition("\n")[2]) + (0 if breaks else column)


class Soak:
    """A run of the benchmark. `problems` has a message for each failed check."""

    def __init__(self, folder: Path, model: Path, rounds: int, files: int) -> None:
        self.root, self.extra = folder / "workspace", folder / "extra"
        self.model, self.rounds, self.files = model, rounds, files
        self.runtime, self.temporary = folder / "run", folder / "tmp"
        for made in (self.root, self.extra, self.runtime, self.temporary):
            made.mkdir()
        (self.extra / "more.py").write_text("def compute_more(total):\n    return total\n")
        self.environment = {
            **{f"XDG_{name}_HOME": str(folder / name) for name in ("CACHE", "DATA", "STATE")},
            "XDG_RUNTIME_DIR": str(self.runtime),
            "TMPDIR": str(self.temporary),
        }
        self.problems: list[str] = []
        self.kills = 0
        self._processes: set[psutil.Process] = set()
        self._draw = random.Random(0)

    async def run(self) -> None:
        """Run all rounds, and then check that no process and no file is left."""
        write_branch(self.root, self.files, 0)
        places = record(_SOURCE, 2 * self.rounds, KEYS, 0)
        windows = [Window(await self._start({"policy": "always"})) for _ in range(2)]
        memory: list[int] = []
        print("round  seconds  keys  answered  kills  memory of the two servers (MB)  same answers as a fresh server")
        for number in range(self.rounds):
            started = time.perf_counter()
            same = await self._round(number, windows, places)
            memory.append(max(window.memory() for window in windows))
            sizes = " ".join(f"{window.memory() / 1e6:.1f}" for window in windows)
            keys, answered = sum(w.keys for w in windows), sum(w.answered for w in windows)
            took = time.perf_counter() - started
            print(
                f"{number + 1:5}  {took:7.1f}  {keys:4}  {answered:8}  {self.kills:5}  {sizes:>30}  {same}", flush=True
            )
        tenth = max(1, self.rounds // 10)
        if memory[-1] > GROWTH * max(memory[:tenth]):
            self.problems.append(f"memory grew from {max(memory[:tenth]) / 1e6:.1f} to {memory[-1] / 1e6:.1f} MB")
        for window in windows:
            await self._stop(window.client)
        await self._check_leftovers()

    async def _round(self, number: int, windows: list[Window], places: list[Place]) -> bool:
        if number % SWITCH_EVERY == SWITCH_EVERY - 1:
            await asyncio.to_thread(write_branch, self.root, self.files, number // SWITCH_EVERY % 2 + 1)
        has_extra = number % 2 == 0
        folder = {"uri": self.extra.as_uri(), "name": "extra"}
        event = {"added": [folder] if has_extra else [], "removed": [] if has_extra else [folder]}
        for window in windows:
            window.client.notify("workspace/didChangeWorkspaceFolders", {"event": event})
            window.client.settings = {"policy": "always", "model": str(self.model), "chunks": 5 + number % 2}
            window.client.notify("workspace/didChangeConfiguration", {"settings": None})
        typing = [
            asyncio.create_task(window.type(places[(2 * number + at) % len(places)], self.root / f"typed{at}.py"))
            for at, window in enumerate(windows)
        ]
        await asyncio.sleep(self._draw.uniform(0.0, 0.5))
        self._kill_engines(windows)
        await asyncio.gather(*typing)
        return await self._compare(number, windows, [self.root, self.extra] if has_extra else [self.root])

    def _kill_engines(self, windows: list[Window]) -> None:
        for process in {each for window in windows for each in self._family(window.client)}:
            with contextlib.suppress(psutil.Error):
                if "policy.engine.worker" in process.cmdline():
                    process.kill()
                    self.kills += 1

    async def _compare(self, number: int, windows: list[Window], roots: list[Path]) -> bool:
        """Compare the servers of both windows with a new server until all agree, for at most `SETTLING` seconds.

        Return whether they agree.
        """
        text = _PROBE.format(number=self._draw.randrange(self.files))
        options = {"policy": "always", "chunks": 5 + number % 2}
        fresh = Window(await self._start(options, roots, cache=f"fresh{number}"))
        until, answers = time.monotonic() + SETTLING, []
        while time.monotonic() < until:
            probes = (window.probe(self.root / "probe.py", text) for window in [*windows, fresh])
            answers = await asyncio.gather(*probes)
            if all(answer == answers[0] for answer in answers) and any(answers[0]):
                break
            await asyncio.sleep(1)
        else:
            self.problems.append(f"round {number + 1}: {answers}")
        await self._stop(fresh.client)
        return all(answer == answers[0] for answer in answers)

    async def _start(self, settings: Mapping[str, object], roots: list[Path] | None = None, cache: str = "") -> Client:
        wanted = {**settings, "model": str(self.model)}
        environment = dict(self.environment)
        if cache:
            environment["XDG_CACHE_HOME"] += cache
        client = await Client.spawn([sys.executable, "-m", "lsp_server.cli"], settings=wanted, env=environment)
        await client.initialize(roots or [self.root], options={"patience": 60})
        await client.seen("repoformer/status", lambda status: status["state"] == "ready")
        return client

    def _family(self, client: Client) -> Iterator[psutil.Process]:
        assert client.process is not None
        server = psutil.Process(client.process.pid)
        for process in (server, *server.children(recursive=True)):
            self._processes.add(process)
            yield process

    async def _stop(self, client: Client) -> None:
        list(self._family(client))
        if status := await asyncio.wait_for(client.close(), 60):
            self.problems.append(f"a server ended with {status}")

    async def _check_leftovers(self) -> None:
        _, alive = await asyncio.to_thread(psutil.wait_procs, self._processes, 20)
        self.problems += [f"left running: {process}" for process in alive]
        for folder in (self.runtime, self.temporary):
            self.problems += [f"left: {file}" for file in folder.rglob("*") if file.is_file() or file.is_socket()]


async def _main(scale: float, model: Path | None) -> int:
    rounds, files = max(1, round(ROUNDS * scale)), max(100, round(FILES * scale))
    print(f"{describe()}; {rounds} rounds, {files:,} files, scale {scale}")
    with tempfile.TemporaryDirectory(prefix="soak-") as made:
        folder = Path(made)
        soak = Soak(folder, model or write_tiny_llama(folder / "tiny.gguf"), rounds, files)
        await soak.run()
    print("\n".join(soak.problems) or "no wrong answer, no growth of memory, nothing left")
    return 1 if soak.problems else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rounds and files (default: %(default)s)")
    parser.add_argument("--model", type=Path, help="a model file (default: a tiny one with random weights)")
    arguments = parser.parse_args()
    sys.exit(asyncio.run(_main(arguments.scale, arguments.model)))
