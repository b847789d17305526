"""Simulate llama.vim of November 2025 with a real `llama-server`: its requests, its cache and the text that it shows.

llama.vim runs one request at a time. A key during a request sets a timer, after which llama.vim tries again. There are
two kinds of requests: at the cursor, and in advance, for the text after the visible suggestion. Answers are cached by
the text around the cursor, and can be used while the user types their beginning. A prompt begins with chunks of visited
and saved files, which `llama-server` reads while the user is idle. The constants below are those of llama.vim.

The simulation favors llama.vim in two respects. Its requests share one connection, but llama.vim starts a `curl`
process for each request. And showing a text takes no time.
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

# The seconds after which a request is tried again, the number of typed characters for which an answer can be used, and
# the largest number of cached answers.
RETRY, LOOK_BACK, KEPT = 0.1, 128, 250
# The largest number of generated tokens, and the time limits of a generation at the cursor and of one in advance.
PREDICT, FIRST_MS, AHEAD_MS = 128, 250, 1000
MOST_RIGHT = 8  # no request if more characters than this follow the cursor on its line
# The largest number of chunks in the prompt, the largest number of lines in a chunk, the number of lines above the
# cursor from which chunks are collected, and the number of lines by which the cursor moves before chunks are collected
# again.
RING, CHUNK, SCOPE, NEAR = 16, 64, 1024, 32
# The seconds between two chunks that are added to the prompt, and the seconds without a key before a chunk is added.
RING_EVERY, RING_IDLE = 1.0, 3.0
# The options of `llama-server --fim-qwen-1.5b-default` and similar presets.
SERVER = ("--ubatch-size", "1024", "--batch-size", "1024", "--ctx-size", "0", "--cache-reuse", "256")


@contextlib.asynccontextmanager
async def llama_server(program: Path, model: Path, port: int) -> AsyncIterator[httpx.AsyncClient]:
    """Run a `llama-server` with its default number of threads. Yield an HTTP client when the server is ready."""
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
                    raise SystemExit(f"{program} exited immediately (status {process.returncode})")
                await asyncio.sleep(0.1)
            yield client
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@dataclass(frozen=True, slots=True)
class Local:
    """The text around the cursor in a request: the lines above, the text left of the cursor, and the text after it.

    `indent` is the number of white space characters at the beginning of the cursor's line.
    """

    prefix: str
    middle: str
    suffix: str
    indent: int

    def contexts(self) -> list[str]:
        """Return the cache keys of an answer: its text, and its text without the first one, two or three lines."""
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
    """The simulated plugin.

    It calls `show` with each text that becomes visible. `answers` has the timings that the server reports for each
    request. `n_prefix` and `n_suffix` are the numbers of lines above and below the cursor in a request.
    """

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
        self._rounds = asyncio.create_task(self._read_chunks())

    # -- events of the editor -----------------------------------------------------------------------------------------

    def enter(self, file: str, before: str, after: str) -> None:
        """Open a file with the text `before` the cursor and the text `after` it."""
        self._file, self._before, self._after, self._typing = file, before, after, False
        asyncio.get_running_loop().call_later(0.1, self._pick_here)

    def key(self, before: str, after: str) -> None:
        """Handle a key, after which the cursor is between the texts `before` and `after`."""
        self._before, self._after, self._typing, self._moved = before, after, True, time.monotonic()
        self._shown = ""
        self._show_cached()
        self._request_completion()

    def save_and_leave(self) -> None:
        """End the typing, and collect a chunk from the lines around the cursor, as at a save."""
        self._typing = False
        self._pick_here()

    async def close(self) -> None:
        """Cancel all requests. If one has failed, raise its error."""
        if self._timer:
            self._timer.cancel()
        for task in filter(None, (self._rounds, self._job)):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    # -- requests -----------------------------------------------------------------------------------------------------

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

    def _request_completion(self, ahead: str = "", at: tuple[str, str] | None = None) -> None:
        """Request a completion at the cursor, or in advance, for the text after the visible suggestion `ahead`.

        For a request in advance, `at` has the texts before and after the cursor. A retry takes the cursor from it.
        """
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._job is not None:
            self._timer = asyncio.get_running_loop().call_later(RETRY, self._request_completion, ahead, at)
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
            self._show_cached()
        self._job = None

    async def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        common = {"id_slot": 0, "stream": False, "cache_prompt": True, "t_max_prompt_ms": 500}
        response = await self.server.post("/infill", json=common | body)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer

    # -- showing ------------------------------------------------------------------------------------------------------

    def _show_cached(self) -> None:
        """Show the cached text for the cursor, and request in advance the text after it. Without one, do nothing."""
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
        if content is not None and (text := self._trimmed(content)):
            self._shown = text
            self.show(text)
            self._request_completion(text, (self._before, self._after))

    def _trimmed(self, content: str) -> str:
        """Return the text that is shown of an answer, or "" if the answer is blank or repeats text after the cursor."""
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

    # -- the ring: the chunks in the prompt ---------------------------------------------------------------------------

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

    async def _read_chunks(self) -> None:
        """While the user is idle, move one collected chunk per second to the prompt, and let the server read it."""
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
