"""The index and the completer of one workspace, made from settings, for the server and `repoformer-lsp complete`.

The index and the completer are independent. The index starts immediately and follows the workspace folders. The model
is found, checked and loaded when it is first needed. If there is no model, the next request looks for one again, so a
running server finds a model that `repoformer-lsp model pull` has downloaded. A change of settings replaces only the
parts that it affects.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import platformdirs

from indexer.rules import why_private
from indexer.settings import IndexSettings
from indexer.workspace import Progress, WorkspaceIndex
from lsp_server.choosing import AUTO, better, choose
from lsp_server.settings import Settings
from lsp_server.uris import path_in
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
    from indexer.model import Cursor, Retriever
    from policy.generators import GeneratorProvider
    from policy.models.card import Card
    from policy.models.choice import Better
    from policy.models.locate import ModelFile

log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """Return the user's cache folder, whose contents can be computed again."""
    return Path(platformdirs.user_cache_dir("repoformer-lsp", appauthor=False))


class Observer(Protocol):
    """Receives what the core reports. Its methods are called on the event loop."""

    def engine_changed(self, state: EngineState, model: str, problem: str) -> None:
        """Receive a new state of the engine for the model called `model`. `problem` says why it failed, or is empty."""

    def indexing(self, progress: Progress) -> None:
        """Receive the progress of indexing."""

    def notice(self, text: str) -> None:
        """Show `text` to the user once."""

    def generator_changed(self, problem: str) -> None:
        """Receive the reason why the configured generator is unavailable, or "" if it is available."""


class Core:
    """Answers requests, independently of the protocol. Call all methods except `wait_indexed` on one event loop.

    `watch` says whether the index follows changes of files on disk.
    """

    def __init__(self, observer: Observer, settings: Settings | None = None, *, watch: bool = True) -> None:
        self._observer = observer
        self._settings = settings or Settings()
        self._watch = watch
        self._roots: tuple[Path, ...] = ()
        self._index: WorkspaceIndex | None = None
        self._completer: Completer | None = None
        self._opening: asyncio.Task[None] | None = None
        self._server_key = os.environ.get("REPOFORMER_API_KEY", "")
        self._fingerprints: dict[Path, asyncio.Task[str]] = {}
        self._buffers: dict[Path, tuple[str, str]] = {}
        # Why the text of a document is private, or "", by document. A change of the rules replaces this dictionary.
        self._private: dict[str, str] = {}

    # -- lifecycle ----------------------------------------------------------------------------------------------------

    def start(self, roots: Sequence[Path], settings: Settings | None = None) -> None:
        """Start to index the workspace folders. `settings` replaces the settings of the constructor."""
        self._roots = tuple(roots)
        self._settings = settings or self._settings
        self._open_index()

    async def warm_up(self) -> None:
        """Load the model now instead of at the first request. Raises the same errors as `complete`."""
        completer = await self._completer_now()
        await completer.warm_up()

    def wait_indexed(self) -> None:
        """Block until the workspace is indexed or the core is closed. Do not call this on the event loop."""
        while self._index is not None and not self._index.wait_idle(0.2):
            pass

    async def apply(self, settings: Settings) -> None:
        """Use `settings` from now on, and replace the parts whose settings have changed."""
        before, self._settings = self._settings, settings
        if _engine_part(before) != _engine_part(settings):
            await self._close_completer()
        elif self._completer is not None:
            self._completer.settings = _completion_settings(settings)
        self._private = {}
        if self._index is not None and _index_part(before) != _index_part(settings):
            await self._close_index()
            self._open_index()

    async def set_server_key(self, key: str) -> None:
        """Set the API key of the server that generates. The next request uses the new key."""
        if key != self._server_key:
            self._server_key = key
            if self._settings.generator == "openai":
                await self._close_completer()

    async def close(self) -> None:
        """Disconnect from the worker processes and close the index."""
        await asyncio.gather(self._close_completer(), self._close_index())

    # -- what happens in the editor -----------------------------------------------------------------------------------

    def set_roots(self, roots: Sequence[Path]) -> None:
        """Replace the folders to index."""
        self._roots = tuple(roots)
        self._private = {}
        if self._index is not None:
            self._index.set_roots(self._roots)

    def set_buffer(self, path: Path, text: str | None, language_id: str = "") -> None:
        """Index `text` instead of the file on disk. None removes the buffer, and the file is indexed again."""
        if text is None:
            self._buffers.pop(path, None)
        else:
            self._buffers[path] = text, language_id
        if self._index is not None:
            self._index.set_buffer(path, text, language_id)

    def touch(self, paths: Iterable[Path]) -> None:
        """Tell the index that these files may have changed on disk."""
        if self._index is not None:
            self._index.touch(paths)

    async def forget(self, document: str) -> None:
        """Delete the state of a closed document, including its part of the KV cache."""
        self._private.pop(document, None)
        if self._completer is not None:
            await self._completer.forget(document)

    async def complete(self, request: Request) -> Completion:
        """Answer `request`. To cancel the request, cancel the task that calls this method. Raises `RepoformerError`."""
        if self._settings.learn and (workspace := self._workspace_of(request)) is not None:
            request = replace(request, shift=learned.counts_of(workspace).shift)
        while True:
            completer = await self._completer_now()
            try:
                asked = replace(
                    request,
                    cursor=await self._marked(request),
                    threshold=await self._calibrated(request, completer),
                )
                return await completer.complete(asked)
            except EngineError:
                if completer is self._completer:
                    raise
                # The settings have changed and this completer was closed, so try again with the new one.

    async def learn(self, request: Request, outcome: learned.Outcome, p: float) -> None:
        """Count the outcome of a suggestion, if the setting `learn` allows it.

        `request` is the request for the suggestion, and `p` is the estimated probability that the user keeps it.
        """
        workspace = self._workspace_of(request)
        if self._settings.learn and workspace is not None:
            try:
                await asyncio.to_thread(learned.add, workspace, outcome, p)
            except OSError as error:
                log.info("%s cannot be written: %s", learned.file(), error.strerror)

    def _workspace_of(self, request: Request) -> Path | None:
        """Return the innermost workspace folder that contains the file of `request`, or None."""
        path = Path(request.cursor.path)
        holding = [folder for folder in self._roots if path.is_relative_to(folder)]
        return max(holding, key=lambda folder: len(folder.parts), default=None)

    async def _marked(self, request: Request, *, again: bool = False) -> Cursor:
        """Return the cursor of `request` with `private`, if a server generates or prompts are saved to disk.

        The rules take milliseconds. So if no server generates, they are applied once for each document, and once more
        if `again` is true.
        """
        path = self._path_to_check(request)
        if path is None:
            return request.cursor
        again = again or self._settings.generator == "openai"
        known = None
        while known is not self._private:  # the settings or the folders may change while the rules are applied
            known = self._private
            if again or request.document not in known:
                include, exclude = _index_part(self._settings)
                rules = IndexSettings(include=include, exclude=exclude)
                reason = await asyncio.to_thread(why_private, path, self._roots, rules)
                known[request.document] = reason.detail if reason else ""
        return replace(request.cursor, private=known[request.document])

    def _path_to_check(self, request: Request) -> Path | None:
        """Return the path for the rules of private files, or None if they do not matter or there is no path."""
        if self._settings.generator != "openai" and not self._settings.saved_prompts_megabytes:
            return None
        return Path(request.cursor.path) if request.cursor.path else path_in(request.document)

    async def _calibrated(self, request: Request, completer: Completer) -> float | None:
        """Return the calibrated threshold of the request's workspace for the model of `completer`, or None."""
        workspace = calibration.workspace_of(Path(request.cursor.path), self._roots)
        if workspace is None or completer.settings.policy != "selective":
            return None
        model = completer.supervisor.model
        if model not in self._fingerprints:
            self._fingerprints[model] = asyncio.create_task(asyncio.to_thread(calibration.fingerprint, model))
        # Later requests use the same task, which takes seconds for a large model, so this request must not cancel it.
        fingerprint = self._fingerprints[model]
        await asyncio.wait({fingerprint})
        if fingerprint.cancelled():  # the completer was closed, and `complete` tries again with the next one
            return None
        try:
            return calibration.threshold_for(workspace, fingerprint.result())
        except OSError:  # the model file cannot be read, which the engine reports
            return None

    async def read_ahead(self, request: Request) -> None:
        """Evaluate the prompts of a likely request, while no request waits. Do nothing before a model is loaded."""
        if self._completer is None:
            return
        cursor = await self._marked(request, again=True)
        if self._completer is not None:  # it may have been closed while the rules were applied
            await self._completer.warm(request.document, cursor)

    def look_ahead(self, request: Request) -> None:
        """Start the completion of a likely later request in the background.

        Do nothing if it is not known whether the document is private, as after a change of the settings.
        """
        private = self._private.get(request.document) if self._path_to_check(request) else ""
        if self._completer is not None and private is not None:
            cursor = replace(request.cursor, private=private)
            self._completer.look_ahead(replace(request, cursor=cursor))

    # -- parts --------------------------------------------------------------------------------------------------------

    def _open_index(self) -> None:
        loop = asyncio.get_running_loop()

        def advanced(progress: Progress) -> None:
            with contextlib.suppress(RuntimeError):  # raised if the loop is closed
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
        """Return the completer. Open it if it is not open, or if it was closed while this method waited for it."""
        while self._completer is None:
            if self._opening is None:
                self._opening = asyncio.create_task(self._open_completer())
                self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())
            # All waiting requests share this task. `wait` does not cancel it when one of them is cancelled.
            opening = self._opening
            await asyncio.wait({opening})
            if self._opening is opening:
                self._opening = None
            if not opening.cancelled():
                opening.result()  # raises the error if the completer could not be opened
        return self._completer

    async def _open_completer(self) -> None:
        supervisor, provider = await self._engines()
        # No other code runs between here and the assignment, so no request sees a completer with older settings.
        self._completer = Completer(supervisor, self._retriever, _completion_settings(self._settings), provider)

    async def _engines(self) -> tuple[Supervisor, GeneratorProvider]:
        """Return the supervisor of the local model and the provider of the generator, as in the settings."""
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
        try:
            return supervisor, await self._provider()
        except BaseException:  # also a cancellation, when the settings change
            await supervisor.close()
            raise

    async def better_model(self) -> Better | None:
        """Return a better model for this machine that is not installed, or None.

        If the speed of the model in use is unknown, measure it. Raises the same errors as `complete`.
        """
        if self._settings.model not in AUTO:
            return None
        completer = await self._completer_now()
        await completer.supervisor.engine()
        return await better(completer.supervisor, Speeds(), _engine_settings(self._settings))

    async def larger_model(self) -> Card | None:
        """Return the next larger model that can be downloaded, even if it may be slow, or None.

        Raises the same errors as `complete`.
        """
        completer = await self._completer_now()
        return await asyncio.to_thread(choice.next_larger, completer.supervisor.model)

    def uses(self, file: str) -> bool:
        """Return whether the model file with the name `file` is in use."""
        return self._completer is not None and self._completer.supervisor.model.name == file

    async def choose_again(self) -> None:
        """Close the completer after a model was installed, so that the next request chooses a model again."""
        if self._settings.model in AUTO:
            await self._close_completer()

    def _engine_changed(self, model: str, state: EngineState, problem: str) -> None:
        self._observer.engine_changed(state, model, problem)

    async def _provider(self) -> GeneratorProvider:
        """Return the provider of the generator in the settings, or of the local model if that generator is unusable."""
        settings, tell = self._settings, self._observer.generator_changed
        tell("")
        if settings.generator == "gguf" and not settings.generator_model:
            tell("Set `generatorModel` to the GGUF file that should generate. The local model is used instead.")
            return SameModel()
        if settings.generator == "gguf":
            try:
                model = locate.resolve(settings.generator_model)
                if model.path.resolve() == locate.resolve(settings.model).path.resolve():
                    tell(f"{model.path.name} already decides. Set `generatorModel` to a larger model, or `generator` "
                         "to \"self\".")  # fmt: skip
                    return SameModel()
                return Larger(await supervisor_of(model, settings, notice=self._observer.notice), tell)
            except ModelError as error:
                tell(f"{error} The local model is used instead.")
        if settings.generator == "openai":
            # Imported only here, because the import of an HTTP client is slow.
            from policy.generators.server import Server
            from policy.generators.wire import Wire

            prompts = TextPrompts(settings.server_prompt, replace(Budgets(), **_budgets(settings)))
            wire = Wire(settings.server_url, self._server_key, patience=settings.server_timeout)
            return Server(wire, settings.generator_model, prompts, tell, decides=settings.server_decides)
        return SameModel()

    async def _close_completer(self) -> None:
        opening, self._opening = self._opening, None
        completer, self._completer = self._completer, None
        if opening is not None:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
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
    """Return the supervisor of an engine for `model`, which is not started yet.

    If this machine is known to read slowly, some prompts are short (`Speed.parts`). Raises `ModelError`.
    """
    header = await asyncio.to_thread(check_generator, model.path)
    log.info("model: %s (%s)", model.path.name, model.source)
    engine_settings = _engine_settings(settings)
    budgets = replace(locate.budgets_of(model.path, header), **_budgets(settings))
    speed = await asyncio.to_thread(lambda: Speeds().of(model.path, engine_settings))
    parts = speed.parts(budgets) if speed else 1
    log.info("budgets: %d tokens before the cursor, %d after it, %d of other files",
             budgets.left, budgets.right, budgets.context)  # fmt: skip
    if parts > 1:
        log.info("until the whole prompt is read, prompts have 1/%d of these budgets", parts)
    return Supervisor(
        model.path,
        engine_settings,
        layout=layout,
        budgets=asdict(budgets),
        parts=parts,
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
    """Return the settings of the engine and the generator. If one of them changes, the completer is replaced."""
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
        saved_megabytes=settings.saved_prompts_megabytes,
        library=settings.llama_library,
    )


def _budgets(settings: Settings) -> dict[str, int]:
    """Return the token budgets that the settings set."""
    own = {"left": settings.left_tokens, "right": settings.right_tokens, "context": settings.context_tokens}
    return {name: tokens for name, tokens in own.items() if tokens is not None}


def _index_part(settings: Settings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the settings `include` and `exclude`. If one of them changes, the index is replaced."""
    return settings.include, settings.exclude
