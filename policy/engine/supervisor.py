"""Keep one worker running: connect to it or start it, restart it with increasing delays, fall back to safer settings.

A worker may serve several servers, each with its own supervisor. All of these supervisors try the same settings in the
same order, so they share one engine again after each change of the settings.

If a worker crashes while it loads a model or at its first evaluation, its settings do not work on this machine. For
example, the weights are repacked for instructions that are not allowed, or a driver crashes. The next worker gets safer
settings, see `policy.engine.settings.fallbacks`. The safer settings that worked are reported to the user once, and
stored for a week for this machine and build, so that the next start is fast. A worker that is killed, or that dies
later, is restarted with the same settings. If a GPU runs out of memory, it gets fewer layers. This change is not
stored, because the free memory changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from policy.engine import libraries
from policy.engine.client import Engine
from policy.engine.endpoint import identity
from policy.engine.messages import ModelInfo
from policy.engine.process import environment_with
from policy.engine.settings import EngineSettings, difference, fallbacks
from policy.errors import EngineDied, EngineFailed, EngineUnavailable, ModelTooLarge, OutOfMemory, RepoformerError

EngineState = Literal["stopped", "starting", "ready", "failed"]
UNKNOWN_LAYERS = 32
FIRST_DELAY, MAX_DELAY = 0.25, 30.0  # seconds
HEALTHY_AFTER = 60.0  # seconds; a worker that ran this long resets the delay
MAX_STARTS = 6
RETRY_AFTER = 60.0  # seconds after a problem of `_MAY_PASS` until a request starts the worker again
REMEMBERED = 7 * 24 * 3600.0  # seconds until settings that crashed are tried again
_MAY_PASS = (ModelTooLarge, EngineUnavailable)  # problems that may disappear although the settings stay the same


class Supervisor:
    """Runs one model on one worker, and replaces the worker when it ends.

    `layout`, unless empty, and `budgets` override the model's metadata. The budgets of short prompts are these, divided
    by `parts` (`worker/prompts.py`). `layers` is the model's number of layers. `memory` is the file with the settings
    that worked (None: store nothing). `environment` has environment variables for the worker. If `apart` is not empty,
    only supervisors with the same `apart` share the engine. `log` gets lines for the log. `notice` gets messages for
    the user, each once. `on_state` gets every new state, with the reason for the state "failed".
    """

    def __init__(
        self,
        model: Path,
        settings: EngineSettings,
        *,
        layout: str = "",
        budgets: Mapping[str, int] = MappingProxyType({}),
        parts: int = 1,
        layers: int = UNKNOWN_LAYERS,
        memory: Path | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
        apart: str = "",
        log: Callable[[str], None] = lambda _line: None,
        notice: Callable[[str], None] = lambda _text: None,
        on_state: Callable[[EngineState, str], None] = lambda _state, _problem: None,
    ) -> None:
        self.model = model.absolute()
        self.info: ModelInfo | None = None
        self.state: EngineState = "stopped"
        self._asked = settings
        self._layout = layout
        self.budgets, self.parts = budgets, parts
        self._fallbacks = list(fallbacks(settings, layers))
        self._memory = memory
        self._environment, self._apart = environment, apart
        self._log, self._notice, self._on_state = log, notice, on_state
        self._engine: Engine | None = None
        self._starting: asyncio.Task[Engine] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._failure: RepoformerError | None = None
        self._failed_at = 0.0
        self._told_shrunk = False
        self._delay = 0.0
        self._ready_at = 0.0
        self._closed = False

    async def engine(self) -> Engine:
        """Return the connection to a worker with the loaded model. Start a worker if none is running.

        Raises `ModelError` if the model cannot be used, and `EngineUnavailable` if workers die repeatedly. After a
        problem that may disappear (such as too little memory), a call a minute later tries again. After any other
        problem, every later call raises the same error.
        """
        if self._engine is not None:
            return self._engine
        if self._failure is not None:
            if not isinstance(self._failure, _MAY_PASS) or time.monotonic() < self._failed_at + RETRY_AFTER:
                raise self._failure
            self._failure, self._delay = None, 0.0
        if self._closed:
            raise EngineUnavailable("the engine was shut down")
        # All requests wait for the same start, which continues if one of the requests is cancelled.
        starting = self._begin_start()
        await asyncio.wait({starting})
        if starting.cancelled():
            raise EngineUnavailable("the engine was shut down")
        return starting.result()

    @property
    def running(self) -> Engine | None:
        """The connection to the running worker, or None. For callers that do not wait for a worker to start."""
        return self._engine

    @property
    def pid(self) -> int | None:
        """The process id of the running worker, or None."""
        return self._engine.pid if self._engine else None

    async def close(self) -> None:
        """Disconnect from the worker, and never start another one."""
        self._closed = True
        await self._drop()
        self._set_state("stopped")

    async def _drop(self) -> None:
        for task in (self._watching, self._starting):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, RepoformerError):
                    await task
        self._watching = self._starting = None
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()

    def _begin_start(self) -> asyncio.Task[Engine]:
        """Return the task that starts a worker. Create it unless a start is in progress."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
            # Without this call, asyncio logs the error of a start for which no request waits.
            self._starting.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._starting

    async def _start(self) -> Engine:
        try:
            return await self._start_with_fallbacks()
        except RepoformerError as error:
            self._failure, self._failed_at = error, time.monotonic()
            self._set_state("failed", str(error))
            self._log(f"engine unavailable: {error}")
            raise
        finally:
            self._starting = None

    async def _start_with_fallbacks(self) -> Engine:
        """Start a worker with the stored settings, and with safer settings after each crash.

        After a crash with the safest settings, the same settings are tried again. Raises `EngineUnavailable` after
        `MAX_STARTS` attempts.
        """
        self._set_state("starting")
        level = min(self._remembered_level(), len(self._fallbacks) - 1)
        last, out_of_memory = EngineDied("never started"), False
        for _attempt in range(MAX_STARTS):
            if self._delay:
                await asyncio.sleep(self._delay)
            settings = self._fallbacks[level]
            try:
                engine = await self._connect(settings)
            except EngineDied as error:
                last = error
                self._log(f"{error}; the engine was starting with {settings}")
                self._back_off()
                if error.crashed:  # otherwise the worker was killed, and the same settings may work
                    level = min(level + 1, len(self._fallbacks) - 1)
            except OutOfMemory as error:
                if not settings.gpu_layers:
                    raise
                self._log(f"{error}; trying with fewer layers on the GPU")
                out_of_memory = True
                while self._fallbacks[level].gpu_layers == settings.gpu_layers:
                    level += 1
            except EngineFailed as error:  # llama.cpp rejects the settings
                raise EngineUnavailable(str(error)) from error
            else:
                self._adopt(engine, level, out_of_memory=out_of_memory)
                return engine
        safest = ", the last time with the safest settings" if last.crashed else ""
        failed = f"The engine failed to start {MAX_STARTS} times{safest}"
        raise EngineUnavailable(f"{last}. {failed}. Run `repoformer-lsp doctor`.")

    async def _connect(self, settings: EngineSettings) -> Engine:
        """Return a connection to the engine that runs the model with `settings`, which may also serve other servers."""
        environment = environment_with(self._environment)
        parameters = (settings, self._layout, sorted(self.budgets.items()), self.parts, self._apart)
        name = identity(self.model, *parameters, environment=environment)
        engine = await Engine.connect(name, environment, self._log)
        try:
            self.info = await engine.load(self.model, settings, self._layout, self.budgets, self.parts)
        except BaseException:
            await engine.close()
            raise
        return engine

    def _adopt(self, engine: Engine, level: int, *, out_of_memory: bool) -> None:
        self._engine = engine
        self._ready_at = time.monotonic()
        self._watching = asyncio.create_task(self._watch(engine))
        if level and level != self._remembered_level():
            changed = difference(self._asked, self._fallbacks[level])
            if out_of_memory:
                self._notice(
                    f"Not enough GPU memory for {self.model.stem}. Running fewer layers on the GPU ({changed})."
                )
            else:
                self._notice(f"llama.cpp crashed with its fastest parameters. It now runs with safer ones ({changed}).")
                self._remember_level(level)
        if self.info is not None and self.info.shrunk and not self._told_shrunk:
            self._told_shrunk = True
            left, right, context = self.info.budgets.left, self.info.budgets.right, self.info.budgets.context
            self._notice(
                f"A context of {self.info.context_size} tokens is too small for the prompts of {self.model.stem}. Each "
                f"part is cut in proportion: {left} tokens before the cursor, {right} after it, {context} of other "
                "files. Increase `contextSize`, or decrease `leftTokens`, `rightTokens` or `contextTokens`."
            )
        self._set_state("ready")

    async def _watch(self, engine: Engine) -> None:
        """Wait until the worker ends, then start another one, so that the next request does not wait for the start."""
        reason = await engine.ended
        self._engine = None
        if self._closed:
            return
        self._log(f"{reason}; starting another engine")
        if time.monotonic() - self._ready_at > HEALTHY_AFTER:
            self._delay = 0.0
        self._begin_start()
        self._back_off()

    def _back_off(self) -> None:
        self._delay = min(max(self._delay * 2, FIRST_DELAY), MAX_DELAY)

    def _set_state(self, state: EngineState, problem: str = "") -> None:
        if state != self.state:
            self.state = state
            self._on_state(state, problem)

    # -- stored settings ------------------------------------------------------------------------------------------

    def _key(self) -> str:
        """Return a hash of the machine, the installed versions and the requested settings.

        If one of these changes, the stored settings no longer apply, and the requested settings are tried first.
        """
        library = f"{libraries.versions()} {self._environment.get(libraries.ENVIRONMENT, '')}"
        builds = [library, _version_of("repoformer-lsp")]
        parts = [platform.node(), platform.machine(), platform.processor(), *builds, repr(self._asked)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def _levels(self) -> dict[str, tuple[int, float]]:
        """Return, for each key, the stored level and the time at which it was stored, in seconds since the epoch.

        A level is the index in `fallbacks` of the settings that worked. Expired levels are omitted.
        """
        if self._memory is None:
            return {}
        try:
            rows = json.loads(self._memory.read_text("utf-8")).items()
        except (OSError, ValueError, AttributeError):
            return {}
        now, levels = time.time(), {}
        for key, row in rows:
            match row:
                case [int(level), int() | float() as at] if level >= 0 and 0 <= now - at < REMEMBERED:
                    levels[key] = level, float(at)
        return levels

    def _remembered_level(self) -> int:
        level, _ = self._levels().get(self._key(), (0, 0.0))
        return level

    def _remember_level(self, level: int) -> None:
        if self._memory is None:
            return
        levels = {**self._levels(), self._key(): (level, time.time())}
        try:
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            self._memory.write_text(json.dumps(levels), "utf-8")
        except OSError as error:
            self._log(f"cannot store the engine's settings in {self._memory}: {error}")


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
