"""Index and completer of one workspace, made from settings: what the server and `repoformer-lsp complete` both run.

The two live apart. The index starts at once and follows the workspace folders; the model is found, checked and loaded
when it is first needed, and looked for again as long as there is none, so that `repoformer-lsp model pull` helps a
server that is running. A change of settings replaces only what it touches.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import platformdirs

from indexer.rules import why_private
from indexer.settings import IndexSettings
from indexer.workspace import Progress, WorkspaceIndex
from lsp_server.choosing import AUTO, better, choose
from lsp_server.settings import Settings
from policy.completion.request import Completion, CompletionSettings, Request
from policy.completion.service import Completer
from policy.engine.settings import EngineSettings
from policy.engine.speed import Speeds
from policy.engine.supervisor import EngineState, Supervisor
from policy.errors import EngineError, ModelError
from policy.gating import calibration, learned
from policy.generators import SameModel
from policy.generators.larger import Larger
from policy.generators.text import TextPrompts
from policy.models import choice, locate
from policy.models.gguf import check_generator
from policy.prompting.prompt import Budgets

if TYPE_CHECKING:
    from indexer.model import Retriever
    from policy.generators import GeneratorProvider
    from policy.models.card import Card
    from policy.models.choice import Better
    from policy.models.locate import ModelFile

log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """Where everything that can be made again is kept for this user."""
    return Path(platformdirs.user_cache_dir("repoformer-lsp", appauthor=False))


class Observer(Protocol):
    """Who wants to know what the core does. Called on the event loop."""

    def engine_changed(self, state: EngineState, model: str, problem: str) -> None:
        """The worker starts, serves, or has failed because of `problem`."""

    def indexing(self, progress: Progress) -> None:
        """The index advances."""

    def notice(self, text: str) -> None:
        """Something a person should be told once."""

    def generator_changed(self, problem: str) -> None:
        """Why the one who is to write completions cannot, or "" once nothing is wrong."""


class Core:
    """Everything that answers requests, but for the protocol. Make and use it on one event loop."""

    def __init__(self, observer: Observer, settings: Settings | None = None, *, watch: bool = True) -> None:
        self._observer = observer
        self._settings = settings or Settings()
        self._watch = watch
        self._roots: tuple[Path, ...] = ()
        self._index: WorkspaceIndex | None = None
        self._completer: Completer | None = None
        self._opening: asyncio.Task[Completer] | None = None
        self._server_key = os.environ.get("REPOFORMER_API_KEY", "")
        self._fingerprints: dict[Path, asyncio.Task[str]] = {}
        self._buffers: dict[Path, tuple[str, str]] = {}

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self, roots: Sequence[Path], settings: Settings | None = None) -> None:
        """Begin to index the workspace folders, with these settings if they are known only now."""
        self._roots = tuple(roots)
        self._settings = settings or self._settings
        self._open_index()

    async def warm_up(self) -> None:
        """Load the model before somebody waits for it. Raises what `complete` does."""
        completer = await self._completer_now()
        await completer.warm_up()

    def wait_indexed(self) -> None:
        """Block until the workspace is indexed, or the core closed; for a thread, not for the event loop."""
        while self._index is not None and not self._index.wait_idle(0.2):
            pass

    async def apply(self, settings: Settings) -> None:
        """Take over changed settings."""
        before, self._settings = self._settings, settings
        if _engine_part(before) != _engine_part(settings):
            await self._close_completer()
        elif self._completer is not None:
            self._completer.settings = _completion_settings(settings)
        if self._index is not None and _index_part(before) != _index_part(settings):
            await self._close_index()
            self._open_index()

    async def set_server_key(self, key: str) -> None:
        """Use this key for the server that generates, from the next request on."""
        if key != self._server_key:
            self._server_key = key
            if self._settings.generator == "openai":
                await self._close_completer()

    async def close(self) -> None:
        """Leave the worker process, and end the index."""
        await asyncio.gather(self._close_completer(), self._close_index())

    # -- what happens in the editor -----------------------------------------------------------------------------------

    def set_roots(self, roots: Sequence[Path]) -> None:
        """Index these folders from now on."""
        self._roots = tuple(roots)
        if self._index is not None:
            self._index.set_roots(self._roots)

    def set_buffer(self, path: Path, text: str | None, language_id: str = "") -> None:
        """An editor's text counts in place of the file on disk; None: the file does again."""
        if text is None:
            self._buffers.pop(path, None)
        else:
            self._buffers[path] = text, language_id
        if self._index is not None:
            self._index.set_buffer(path, text, language_id)

    def touch(self, paths: Iterable[Path]) -> None:
        """These files may have changed on disk."""
        if self._index is not None:
            self._index.touch(paths)

    async def forget(self, document: str) -> None:
        """A document was closed: what the engine keeps of it can go."""
        if self._completer is not None:
            await self._completer.forget(document)

    async def complete(self, request: Request) -> Completion:
        """Answer a request; cancel the task to stop it. Raises `RepoformerError`."""
        if self._settings.learn and (workspace := self._workspace_of(request)) is not None:
            request = replace(request, shift=learned.counts_of(workspace).shift)
        while True:
            completer = await self._completer_now()
            try:
                asked = replace(
                    request,
                    threshold=await self._calibrated(request, completer),
                    private=await self._private(request),
                )
                return await completer.complete(asked)
            except EngineError:
                if completer is self._completer:
                    raise
                # Settings were changed meanwhile, and this one is closed.

    async def learn(self, request: Request, outcome: learned.Outcome, p: float) -> None:
        """Count what became of the suggestion of `request`, which was to be kept with probability `p`."""
        workspace = self._workspace_of(request)
        if self._settings.learn and workspace is not None:
            try:
                await asyncio.to_thread(learned.add, workspace, outcome, p)
            except OSError as error:
                log.info("%s cannot be written: %s", learned.file(), error.strerror)

    def _workspace_of(self, request: Request) -> Path | None:
        """Return the innermost workspace folder that holds the file of `request`."""
        path = Path(request.cursor.path)
        holding = [folder for folder in self._roots if path.is_relative_to(folder)]
        return max(holding, key=lambda folder: len(folder.parts), default=None)

    async def _private(self, request: Request) -> str:
        """Why the request's text must not leave this machine; asked only where it might."""
        if self._settings.generator != "openai" or not request.cursor.path:
            return ""
        include, exclude = _index_part(self._settings)
        rules = IndexSettings(include=include, exclude=exclude)
        reason = await asyncio.to_thread(why_private, Path(request.cursor.path), self._roots, rules)
        return reason.detail if reason else ""

    async def _calibrated(self, request: Request, completer: Completer) -> float | None:
        """The threshold that the request's workspace was calibrated to with this model."""
        workspace = calibration.workspace_of(Path(request.cursor.path), self._roots)
        if workspace is None or completer.settings.policy != "selective":
            return None
        model = completer.supervisor.model
        if model not in self._fingerprints:
            self._fingerprints[model] = asyncio.create_task(asyncio.to_thread(calibration.fingerprint, model))
        try:  # once, whoever types on meanwhile: it takes seconds where the model is large
            return calibration.threshold_for(workspace, await asyncio.shield(self._fingerprints[model]))
        except OSError:  # the engine says what is wrong with the file
            return None

    async def read_ahead(self, request: Request) -> None:
        """Have the engine read what `request` would need, while nobody waits; nothing where no model is there yet."""
        if self._completer is not None:
            await self._completer.warm(request.document, request.cursor)

    def look_ahead(self, request: Request) -> None:
        """Complete what is going to be asked for."""
        if self._completer is not None:
            self._completer.look_ahead(request)

    # -- parts --------------------------------------------------------------------------------------------------------

    def _open_index(self) -> None:
        loop = asyncio.get_running_loop()

        def advanced(progress: Progress) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._observer.indexing, progress)

        include, exclude = _index_part(self._settings)
        settings = IndexSettings(include=include, exclude=exclude, watch=self._watch)
        self._index = WorkspaceIndex(self._roots, settings, cache_dir=cache_dir() / "index", on_progress=advanced)
        self._index.start()
        for path, (text, language_id) in self._buffers.items():
            self._index.set_buffer(path, text, language_id)

    async def _close_index(self) -> None:
        index, self._index = self._index, None
        if index is not None:
            await asyncio.to_thread(index.close)

    async def _completer_now(self) -> Completer:
        if self._completer is not None:
            return self._completer
        if self._opening is None:
            self._opening = asyncio.create_task(self._open_completer())
            self._opening.add_done_callback(self._opened)
        # One opening serves all who wait for it, and outlives the request that happened to be first.
        return await asyncio.shield(self._opening)

    def _opened(self, task: asyncio.Task[Completer]) -> None:
        self._opening = None
        if not task.cancelled() and task.exception() is None:
            self._completer = task.result()
            self._completer.settings = _completion_settings(self._settings)  # they may have changed meanwhile

    async def _open_completer(self) -> Completer:
        settings = self._settings

        async def engine_of(model: ModelFile) -> Supervisor:
            return await supervisor_of(
                model,
                settings,
                layout=settings.layout,
                notice=self._observer.notice,
                on_state=partial(self._engine_changed, locate.name_of(model.path)),
            )

        if settings.model in AUTO:
            supervisor = await choose(engine_of, Speeds(), _engine_settings(settings), self._observer.notice)
        else:
            supervisor = await engine_of(locate.resolve(settings.model))
        return Completer(supervisor, self._retriever, provider=await self._provider())

    async def better_model(self) -> Better | None:
        """A model that would complete better on this machine, and has to be fetched first.

        Measures the model in use where that was not done yet. Raises what `complete` does.
        """
        if self._settings.model not in AUTO:
            return None
        completer = await self._completer_now()
        await completer.supervisor.engine()
        return await better(completer.supervisor, Speeds(), _engine_settings(self._settings))

    async def larger_model(self) -> Card | None:
        """The next larger model that could be fetched, whatever its speed. Raises what `complete` does."""
        completer = await self._completer_now()
        return await asyncio.to_thread(choice.next_larger, completer.supervisor.model)

    def uses(self, file: str) -> bool:
        """Whether the model file of this name completes at the moment."""
        return self._completer is not None and self._completer.supervisor.model.name == file

    async def choose_again(self) -> None:
        """Other models are installed now: look for the one to use with the next request."""
        if self._settings.model in AUTO:
            await self._close_completer()

    def _engine_changed(self, model: str, state: EngineState, problem: str) -> None:
        self._observer.engine_changed(state, model, problem)

    async def _provider(self) -> GeneratorProvider:
        """Who writes, by the settings; the local model where what is set cannot be used at all."""
        settings, tell = self._settings, self._observer.generator_changed
        tell("")
        if settings.generator == "gguf" and not settings.generator_model:
            tell("Set `generatorModel` to the GGUF file that should generate. The local model is used instead.")
            return SameModel()
        if settings.generator == "gguf":
            try:
                model = locate.resolve(settings.generator_model)
                if model.path.resolve() == locate.resolve(settings.model).path.resolve():
                    tell(f"{model.path.name} decides already: set `generatorModel` to a larger model, or `generator` "
                         "to \"self\".")  # fmt: skip
                    return SameModel()
                return Larger(await supervisor_of(model, settings, notice=self._observer.notice), tell)
            except ModelError as error:
                tell(f"{error} The local model is used instead.")
        if settings.generator == "openai":
            # Loaded by those who use it: an HTTP client takes a while.
            from policy.generators.server import Server
            from policy.generators.wire import Wire

            prompts = TextPrompts(settings.server_prompt, replace(Budgets(), **_budgets(settings)))
            wire = Wire(settings.server_url, self._server_key, patience=settings.server_timeout)
            return Server(wire, settings.generator_model, prompts, tell, decides=settings.server_decides)
        return SameModel()

    async def _close_completer(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        completer, self._completer = self._completer, None
        for task in self._fingerprints.values():
            task.cancel()
        self._fingerprints.clear()
        if completer is not None:
            await completer.close()

    def _retriever(self) -> Retriever | None:
        return self._index.snapshot if self._index is not None else None


async def supervisor_of(
    model: ModelFile,
    settings: Settings,
    *,
    layout: str = "",
    notice: Callable[[str], None],
    on_state: Callable[[EngineState, str], None] = lambda _state, _problem: None,
) -> Supervisor:
    """The engine that runs `model` under these settings, not started yet. Raises `ModelError`."""
    header = await asyncio.to_thread(check_generator, model.path)
    log.info("model: %s (%s)", model.path.name, model.source)
    return Supervisor(
        model.path,
        _engine_settings(settings),
        layout=layout,
        budgets={**locate.recommended_budgets(model), **_budgets(settings)},
        layers=header.number(f"{header.architecture}.block_count", 32),
        memory=cache_dir() / "engine.json",
        log=log.info,
        notice=notice,
        on_state=on_state,
    )


def _completion_settings(settings: Settings) -> CompletionSettings:
    return CompletionSettings(
        policy=settings.policy,
        selection=settings.selection,
        threshold=settings.threshold,
        multiline=settings.multiline != "never",
        patience=settings.patience,
        chunks=settings.chunks,
        suggest=settings.suggest,
    )


def _engine_part(settings: Settings) -> tuple[object, ...]:
    """What the engine and the generator were made with: a change of it takes others."""
    server = settings.server_url, settings.server_prompt, settings.server_decides, settings.server_timeout
    generator = settings.generator, settings.generator_model, server
    return settings.model, settings.layout, _budgets(settings), _engine_settings(settings), generator


def _engine_settings(settings: Settings) -> EngineSettings:
    return EngineSettings(
        gpu_layers=settings.gpu_layers,
        main_gpu=settings.main_gpu,
        tensor_split=settings.tensor_split,
        flash_attention=settings.flash_attention,
        kv_cache_type=settings.kv_cache_type,
        threads=settings.threads,
        context_size=settings.context_size,
        idle_minutes=settings.unload_after_minutes,
        library=settings.llama_library,
    )


def _budgets(settings: Settings) -> dict[str, int]:
    """The token budgets that a person set; the model has its own for the others."""
    own = {"left": settings.left_tokens, "right": settings.right_tokens, "context": settings.context_tokens}
    return {name: tokens for name, tokens in own.items() if tokens is not None}


def _index_part(settings: Settings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the index was started with: a change of it takes another index."""
    return settings.include, settings.exclude
