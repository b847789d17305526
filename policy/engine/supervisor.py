"""Keep one worker running: connect to it or start it, restart it with back-off, fall back to safer settings.

The worker may serve other servers too. Each server has a supervisor that takes the same steps, so they connect to the
same engine again after each step.

A worker that crashes while it loads a model or at its first evaluation had settings that do not work on this machine
(weights repacked for instructions that are not allowed, a faulty driver). The next one gets safer settings, see
`policy.engine.settings.fallbacks`. The settings that worked are remembered for a week, per machine and build, so that
the next start is quick, and reported once. A worker that is killed, or that dies later, is restarted with the same
settings. A GPU that runs out of
memory gets fewer layers; that is not remembered, because the free memory changes.
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
FIRST_DELAY, LONGEST_DELAY = 0.25, 30.0  # seconds
HEALTHY_AFTER = 60.0  # seconds: a worker that ran this long resets the back-off
MAX_STARTS = 6
RETRY_AFTER = 60.0  # seconds
REMEMBERED = 7 * 24 * 3600.0  # seconds for which parameters that crashed are not tried again
_MAY_PASS = (ModelTooLarge, EngineUnavailable)


class Supervisor:
    """One model on one worker, replaced as often as it takes.

    `log` gets lines for the log; `notice` gets the few sentences a person should see, each once; `on_state` every
    change of state, with the reason where it has failed. `memory` is the file that remembers what worked (None: nothing
    is remembered). `apart`, unless it is empty, names an engine that is shared with no supervisor of another name.
    """

    def __init__(
        self,
        model: Path,
        settings: EngineSettings,
        *,
        layout: str = "",
        budgets: Mapping[str, int] = MappingProxyType({}),
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
        self._budgets = budgets
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
        """A worker with the model loaded, starting one if there is none.

        Raises `ModelError` when the model cannot be used, and `EngineUnavailable` when workers keep dying. What may
        pass (too little memory, above all) is tried again a minute later, anything else never.
        """
        if self._engine is not None:
            return self._engine
        if self._failure is not None:
            if not isinstance(self._failure, _MAY_PASS) or time.monotonic() < self._failed_at + RETRY_AFTER:
                raise self._failure
            self._failure, self._delay = None, 0.0
        if self._closed:
            raise EngineUnavailable("the engine was shut down")
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        # One start serves all who wait for it, and outlives the request that happened to be first.
        return await asyncio.shield(self._starting)

    @property
    def running(self) -> Engine | None:
        """The worker that serves at the moment, for those who will not wait for one."""
        return self._engine

    @property
    def pid(self) -> int | None:
        """Process id of the worker that serves at the moment."""
        return self._engine.pid if self._engine else None

    async def close(self) -> None:
        """Leave the worker and stay closed."""
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
        """Start with the remembered settings, then safer ones after each crash; the last may be tried again."""
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
                self._log(f"{error}; it was starting with {settings}")
                self._back_off()
                if error.crashed:  # one that was killed may well start the next time
                    level = min(level + 1, len(self._fallbacks) - 1)
            except OutOfMemory as error:
                if not settings.gpu_layers:
                    raise
                self._log(f"{error}; trying with fewer layers on the GPU")
                out_of_memory = True
                while self._fallbacks[level].gpu_layers == settings.gpu_layers:
                    level += 1
            except EngineFailed as error:  # it refuses the settings
                raise EngineUnavailable(str(error)) from error
            else:
                self._adopt(engine, level, out_of_memory=out_of_memory)
                return engine
        safest = ", the last with the safest parameters" if last.crashed else ""
        raise EngineUnavailable(f"{last}. {MAX_STARTS} attempts failed{safest}: run `repoformer-lsp doctor`")

    async def _connect(self, settings: EngineSettings) -> Engine:
        """The engine that runs our model with `settings`, shared with every server that wants the same."""
        environment = environment_with(self._environment)
        parameters = (settings, self._layout, sorted(self._budgets.items()), self._apart)
        name = identity(self.model, *parameters, environment=environment)
        engine = await Engine.connect(name, environment, self._log)
        try:
            self.info = await engine.load(self.model, settings, self._layout, self._budgets)
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
                    f"The GPU has not the memory for {self.model.stem}; less of it runs there now ({changed})."
                )
            else:
                self._notice(f"llama.cpp crashed with its fastest parameters; it runs with safer ones now ({changed}).")
                self._remember_level(level)
        if self.info is not None and self.info.shrunk and not self._told_shrunk:
            self._told_shrunk = True
            left, right, context = self.info.budgets.left, self.info.budgets.right, self.info.budgets.context
            self._notice(
                f"A context of {self.info.context_size} tokens is too small for what {self.model.stem} reads. Each "
                f"part is cut in proportion, to {left} tokens left of the cursor, {right} right of it, {context} of "
                "other files: raise `contextSize`, or lower `leftTokens`, `rightTokens` or `contextTokens`."
            )
        self._set_state("ready")

    async def _watch(self, engine: Engine) -> None:
        """Wait for the worker's end; then start the next one, so that the next request finds it ready."""
        reason = await engine.ended
        self._engine = None
        if self._closed:
            return
        self._log(f"{reason}; starting another")
        if time.monotonic() - self._ready_at > HEALTHY_AFTER:
            self._delay = 0.0
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._back_off()

    def _back_off(self) -> None:
        self._delay = min(max(self._delay * 2, FIRST_DELAY), LONGEST_DELAY)

    def _set_state(self, state: EngineState, problem: str = "") -> None:
        if state != self.state:
            self.state = state
            self._on_state(state, problem)

    # -- what worked on this machine ------------------------------------------------------------------------------

    def _key(self) -> str:
        """This machine, the installed versions, what was asked for: a change of any of them is worth a new try."""
        library = f"{libraries.versions()} {self._environment.get(libraries.ENVIRONMENT, '')}"
        builds = [library, _version_of("repoformer-lsp")]
        parts = [platform.node(), platform.machine(), platform.processor(), *builds, repr(self._asked)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def _levels(self) -> dict[str, tuple[int, float]]:
        """By key, the level and when it was found to be needed (seconds since the epoch); old ones do not count."""
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
            self._log(f"could not remember the engine's parameters in {self._memory}: {error}")


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
