"""A stand-in for llama.vim in front of a `llama-server`: what it asks for and when, what it keeps, what it shows.

Written after llama.vim of November 2025. One job at a time; while it runs, a key makes a timer that tries again in
100 ms. A first request may generate for 250 ms, the one after it (behind what is shown, made ahead) for a second. Up
to 250 answers are kept by their context and hold for the next 128 characters typed. Chunks of the files that were
visited and saved are put before every prompt, at most 16 of 32 lines, each taken in while nobody types. Two things are
in its favour: requests go over one open connection where llama.vim starts a `curl` for each, and drawing costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

RETRY, LOOK_BACK, KEPT = 0.1, 128, 250
PREDICT, FIRST_MS, AHEAD_MS = 128, 250, 1000
MOST_RIGHT = 8  # characters right of the cursor, above which nothing is asked for
RING, CHUNK, SCOPE, NEAR = 16, 64, 1024, 32  # chunks, and lines of one; lines around a cursor; lines moved
RING_EVERY, RING_IDLE = 1.0, 3.0  # seconds
# What `llama-server --fim-qwen-1.5b-default` and its like are short for.
SERVER = ("--ubatch-size", "1024", "--batch-size", "1024", "--ctx-size", "0", "--cache-reuse", "256")


@contextlib.asynccontextmanager
async def llama_server(program: Path, model: Path, port: int) -> AsyncIterator[httpx.AsyncClient]:
    """Run a `llama-server` with its own threads and settings; a client that speaks to it once it is ready."""
    process = await asyncio.create_subprocess_exec(
        program,
        *("--model", model, "--port", str(port), *SERVER),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=600, trust_env=False) as client:
            for _ in range(600):
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get("/health")).is_success:
                        break
                if process.returncode is not None:
                    raise SystemExit(f"{program} ended at once (status {process.returncode})")
                await asyncio.sleep(0.1)
            yield client
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@dataclass(frozen=True, slots=True)
class Local:
    """The text around a cursor as it is sent."""

    prefix: str
    middle: str
    suffix: str
    indent: int

    def contexts(self) -> list[str]:
        """What an answer is kept by: the context, also with up to three lines fewer at its top."""
        prefix, keys = self.prefix, [self.prefix]
        for _ in range(3):
            prefix = prefix.partition("\n")[2]
            if not prefix:
                break
            keys.append(prefix)
        return [_key(each + self.middle, self.suffix) for each in keys]


def _key(before: str, suffix: str) -> str:
    return f"{before}Î{suffix}"


@dataclass
class LlamaVim:
    """`show` gets each text that comes on the screen; `answers` collects the server's timings, one for each request."""

    server: httpx.AsyncClient
    show: Callable[[str], None]
    n_prefix: int = 256
    n_suffix: int = 64

    def __post_init__(self) -> None:
        self.answers: list[dict[str, Any]] = []
        self._before = self._after = self._file = ""
        self._typing = False
        self._moved = 0.0
        self._kept: OrderedDict[str, str] = OrderedDict()
        self._job: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._shown = ""
        self._dice = random.Random(0)
        self._ring: list[tuple[str, str]] = []
        self._queue: list[tuple[str, str]] = []
        self._picked_at = -9999
        self._rounds = asyncio.create_task(self._take_in())

    # -- what an editor tells -----------------------------------------------------------------------------------------

    def enter(self, file: str, before: str, after: str) -> None:
        """A file is opened, with a cursor in it."""
        self._file, self._before, self._after, self._typing = file, before, after, False
        asyncio.get_running_loop().call_later(0.1, self._pick_here)

    def key(self, before: str, after: str) -> None:
        """The text has changed by a key."""
        self._before, self._after, self._typing, self._moved = before, after, True, time.monotonic()
        self._shown = ""
        self._look()
        self._ask()

    def save_and_leave(self) -> None:
        """Nothing is typed here any more."""
        self._typing = False
        self._pick_here()

    async def close(self) -> None:
        """Stop asking. Raises what a request had failed with."""
        if self._timer:
            self._timer.cancel()
        for task in filter(None, (self._rounds, self._job)):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    # -- asking -------------------------------------------------------------------------------------------------------

    def _local(self, before: str, after: str, ahead: str = "") -> Local:
        *above, left = (before + ahead).split("\n")
        right, *below = after.split("\n")
        if ahead:
            right = ""
        elif not (left + right).strip():
            left = right = ""
        return Local(
            "\n".join(above[-self.n_prefix :]) + "\n",
            left,
            right + "\n" + "\n".join(below[: self.n_suffix]) + "\n",
            len(left) - len(left.lstrip()),
        )

    def _ask(self, ahead: str = "", at: tuple[str, str] | None = None) -> None:
        """Ask for a completion here, or of what stands `at` a place behind a text that is shown."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._job is not None:
            self._timer = asyncio.get_running_loop().call_later(RETRY, self._ask, ahead, at)
            return
        before, after = at or (self._before, self._after)
        local = self._local(before, after, ahead)
        if len(local.suffix.partition("\n")[0]) > MOST_RIGHT:
            return
        if any(self._recall(key) is not None for key in local.contexts()):
            return
        near = self._chunk(self._lines_near(before, after))
        self._ring = [each for each in self._ring if _similarity(each[1], near) <= 0.5]
        body = {
            "input_prefix": local.prefix,
            "input_suffix": local.suffix,
            "input_extra": self._extra(),
            "prompt": local.middle,
            "n_predict": PREDICT,
            "n_indent": local.indent,
            "top_k": 40,
            "top_p": 0.9,
            "samplers": ["top_k", "top_p", "infill"],
            "t_max_predict_ms": AHEAD_MS if ahead else FIRST_MS,
        }
        self._job = asyncio.create_task(self._request(body, local))
        line = before.count("\n")
        if abs(line - self._picked_at) > NEAR:
            lines = (before + after).split("\n")
            self._pick(lines[max(0, line - SCOPE) : max(1, line - self.n_prefix)])
            self._pick(lines[line + self.n_suffix : line + self.n_suffix + CHUNK])
            self._picked_at = line

    async def _request(self, body: dict[str, Any], local: Local) -> None:
        answer = await self._post(body)
        self.answers.append(answer["timings"])
        for key in local.contexts():
            self._kept[key] = answer["content"]
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        if not self._shown:
            self._look()
        self._job = None

    async def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        common = {"id_slot": 0, "stream": False, "cache_prompt": True, "t_max_prompt_ms": 500}
        response = await self.server.post("/infill", json=common | body)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer

    # -- showing ------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Show what is kept for the cursor, if there is anything, and ask for what would follow it."""
        if not self._typing:
            return
        local = self._local(self._before, self._after)
        content = self._recall(_key(local.prefix + local.middle, local.suffix))
        if content is None:
            written, best = local.prefix + local.middle, ""
            for count in range(1, min(LOOK_BACK, len(written) - 1) + 1):
                earlier = self._recall(_key(written[:-count], local.suffix))
                if earlier and earlier.startswith(written[-count:]) and len(earlier) - count > len(best):
                    best = earlier[count:]
            content = best or None
        if content is not None and (text := self._worth_showing(content)):
            self._shown = text
            self.show(text)
            self._ask(text, (self._before, self._after))

    def _worth_showing(self, content: str) -> str:
        """An answer as it is shown: nothing that is blank or repeats what stands there."""
        left, (right, *below) = self._before.rpartition("\n")[2], self._after.split("\n")
        text = content.rstrip("\n")
        if not (left + right).strip():
            common = min(len(text) - len(text.lstrip(" \t")), len(left))
            text = text[common:]
        following = next((line for line in below if line.strip()), None)
        repeats = "\n" not in text and (text == right or left + text == following)
        return "" if not text.strip() or repeats else text

    def _recall(self, key: str) -> str | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    # -- the ring of chunks -------------------------------------------------------------------------------------------

    def _extra(self) -> list[dict[str, str]]:
        return [{"filename": file, "text": text} for file, text in self._ring]

    def _lines_near(self, before: str, after: str) -> list[str]:
        return [*before.split("\n")[-CHUNK // 2 :], *after.split("\n")[1 : 1 + CHUNK // 2]]

    def _chunk(self, lines: list[str]) -> str:
        start = self._dice.randint(0, max(0, len(lines) - CHUNK // 2))
        return "\n".join(lines[start : start + CHUNK // 2 + 1]) + "\n"

    def _pick_here(self) -> None:
        self._pick(self._lines_near(self._before, self._after))

    def _pick(self, lines: list[str]) -> None:
        if len(lines) < 3:
            return
        chunk = "\n".join(lines) + "\n" if len(lines) + 1 < CHUNK else self._chunk(lines)
        for place in (self._ring, self._queue):
            if any(chunk == text for _, text in place):
                return
            place[:] = [each for each in place if _similarity(each[1], chunk) <= 0.9]
        self._queue = [*self._queue, (self._file, chunk)][-RING:]

    async def _take_in(self) -> None:
        """Once a second, while nobody types: one more chunk, which the server reads at once."""
        while True:
            await asyncio.sleep(RING_EVERY)
            if self._queue and not (self._typing and time.monotonic() - self._moved < RING_IDLE):
                self._ring = [*self._ring, self._queue.pop(0)][-RING:]
                nothing = {"input_prefix": "", "input_suffix": "", "prompt": "", "n_predict": 0, "samplers": []}
                await self._post({**nothing, "input_extra": self._extra(), "t_max_predict_ms": 1})


def _similarity(left: str, right: str) -> float:
    one, other = re.findall(r"\w+", left), re.findall(r"\w+", right)
    known = set(one)
    return 2 * sum(word in known for word in other) / max(1, len(one) + len(other))
