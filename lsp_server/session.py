"""The state of one connection: documents, settings, the core, and the running requests.

Handlers in `features` convert messages to calls of `Session`, which is independent of the types of LSP. A session sends
messages through `ClientOutput`. All its methods run on the event loop, and none takes long, because the work is done in
the threads of the index and in the worker process.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from indexer.languages import SHEBANG_LENGTH, language_of
from indexer.model import Cursor
from lsp_server import log as logs
from lsp_server import parent
from lsp_server.core import Core
from lsp_server.notices import Notices, Severity
from lsp_server.offer import Answers, fetch, offer
from lsp_server.outcomes import Outcomes
from lsp_server.power import Power
from lsp_server.settings import Settings, read_settings
from lsp_server.status import Facts, Status, status_of
from lsp_server.text import Document, Encoding, Place, Position
from lsp_server.uris import local_path
from policy.completion.request import Completion, Request, Trigger
from policy.errors import EngineUnavailable, ModelError, RepoformerError
from policy.tracing import mark

if TYPE_CHECKING:
    from indexer.workspace import Progress
    from policy.engine.supervisor import EngineState
    from policy.gating.learned import Outcome
    from policy.models.card import Card

log = logging.getLogger(__name__)

Fate = Literal["offered", "shown", "partly accepted", "accepted"]


class ClientOutput(Protocol):
    """Sends the messages of a session to its client."""

    def show(self, severity: Severity, text: str) -> None:
        """Show a message to the user."""

    def report(self, status: Status) -> None:
        """Send the status of the server."""

    def show_progress(self, task: str, share: float | None) -> None:
        """Show the progress of a long task: a share from 0 to 1, or None if it is unknown. 1 ends the task."""

    async def choose(self, text: str, actions: Sequence[str], otherwise: str) -> str | None:
        """Ask the user the question `text`. Return the chosen action, or None if the user chose none.

        If the client cannot ask, show the message `otherwise` instead and return None.
        """


@dataclass(frozen=True, slots=True)
class Record:
    """A completion that was sent to the client.

    `number` identifies the completion in later messages, and `position` is its LSP position. `fate` says what the user
    did with the completion, and `candidate` with which of its texts: 0 is `completion.text`.
    """

    number: int
    uri: str
    position: Position
    request: Request
    completion: Completion
    fate: Fate = "offered"
    candidate: int = 0


class Session:
    """The state of one client. `stopped` is set when the connection has to end.

    `defaults` has the settings of the command line.
    """

    def __init__(self, client: ClientOutput, defaults: Mapping[str, object]) -> None:
        self.begun = False  # whether the client has sent `initialize`
        self.stopped = asyncio.Event()
        self.exit_status = 1  # LSP requires 1 if `exit` arrives without `shutdown`
        self.encoding: Encoding = "utf-16"
        self.roots: tuple[Path, ...] = ()
        self.settings = Settings()
        self._started = asyncio.Event()
        self._client = client
        self._notices = Notices(client.show)
        self._facts = Facts()
        self._power = Power()
        self._status: Status | None = None
        self._layers: tuple[object, ...] = (defaults,)
        self._core = Core(self)
        self._documents: dict[str, Document] = {}
        self._running: dict[str, asyncio.Task[object]] = {}
        self._ahead: dict[str, asyncio.Task[None]] = {}  # tasks that evaluate prompts in advance, by document
        self._numbers = itertools.count(1)
        self._records: dict[str, Record] = {}
        self._outcomes = Outcomes(self._learn)
        self._background: set[asyncio.Task[None]] = set()

    # -- lifecycle ----------------------------------------------------------------------------------------------------

    def begin(
        self, *, encoding: Encoding, roots: tuple[Path, ...], options: object, client_process: int | None
    ) -> None:
        """Store what the client sent with `initialize`.

        `options` are the `initializationOptions`, and `client_process` is the id of the client's process, if it is
        known.
        """
        self.encoding = encoding
        self._layers = (*self._layers, options)
        if isinstance(options, Mapping) and isinstance(key := options.get("serverKey"), str):
            self.set_server_key(key)
        self.configure()
        self.set_roots(roots)
        if client_process is not None:
            self._spawn(parent.watch(client_process, self._orphaned))
        self.begun = True

    def start(self) -> None:
        """Start to index the workspace and to load the model in the background. The settings must be known."""
        if self.stopped.is_set():  # the client has disconnected before it sent the settings
            return
        self._started.set()
        self._tell_status()
        self._core.start(self.roots, self.settings)
        self._spawn(self._warm_up())

    async def _warm_up(self) -> None:
        if self._started.is_set() and self.settings.enabled:
            await self._core.warm_up()
            await self._offer_better()

    async def _offer_better(self) -> None:
        """Offer the user a better model if this machine is fast enough for one. Use the model after the download."""
        better = await self._core.better_model()
        if better is not None and await offer(better, self._client, Answers()):
            await self._use(better.card)

    def get_model(self) -> None:
        """Download the next larger model than the one in use, because the user requested it."""
        self._spawn(self._get_model())

    async def _get_model(self) -> None:
        card = await self._core.larger_model()
        if card is None:
            self._client.show("info", "There is no better model to download.")
        elif await fetch(card, self._client):
            await self._use(card)

    async def _use(self, card: Card) -> None:
        """Use a model that was just downloaded, if it is fast enough."""
        await self._core.choose_again()
        await self._core.warm_up()
        if self._core.uses(card.file):
            self.notice(f"{card.title} is now in use.")
        else:
            self.notice(
                f"{card.title} was downloaded, but another model is in use. "
                "To see why, run `repoformer-lsp model list`."
            )

    def shutting_down(self) -> None:
        """Cancel the running requests, because the client sent `shutdown`. The exit status becomes 0."""
        self.exit_status = 0
        for task in self._running.values():
            task.cancel()

    def stop(self) -> None:
        """End the connection."""
        self.stopped.set()

    async def close(self) -> None:
        """Stop all work and disconnect from the worker."""
        self.stop()
        running = [*self._running.values(), *self._background]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._core.close()
        log.info("the session is closed")

    def _orphaned(self) -> None:
        log.warning("the client's process has ended, so the session ends")
        self.stop()

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._failed(error)

    # -- settings -----------------------------------------------------------------------------------------------------

    def configure(self, sent: object = None) -> None:
        """Use the settings `sent`, and report invalid ones.

        The settings `sent` override those of `initialize`, which override those of the command line.
        """
        settings, problems = read_settings(*self._layers, sent)
        if problems:
            listed = "; ".join(problems)
            self._notices.tell("settings", f"Invalid settings, replaced by their defaults: {listed}.", "warning")
        else:
            self._notices.settle("settings")
        if settings != self.settings:
            self.settings = settings
            if self._started.is_set():
                self._spawn(self._apply(settings))
        logs.set_level(settings.log_level)
        self._update(enabled=settings.enabled, policy=settings.policy, suggest=settings.suggest)

    async def _apply(self, settings: Settings) -> None:
        await self._core.apply(settings)
        await self._warm_up()  # so that the user sees immediately whether a corrected setting helps

    def set_server_key(self, key: str) -> None:
        """Set the API key of the server that generates. The key is no setting, because settings files may be shared."""
        self._spawn(self._use_key(key))

    async def _use_key(self, key: str) -> None:
        await self._core.set_server_key(key)
        await self._warm_up()  # otherwise, the status would still be that of the closed engine

    # -- workspace ----------------------------------------------------------------------------------------------------

    def set_roots(self, roots: tuple[Path, ...]) -> None:
        """Replace the workspace folders, and report those that do not exist."""
        self.roots = roots
        # `Path.is_dir` raises some errors, for instance for a name that is too long.
        if gone := [str(root) for root in roots if not os.path.isdir(root)]:  # noqa: PTH112
            listed = ", ".join(gone)
            self._notices.tell(
                "workspace", f"These workspace folders do not exist and are not indexed: {listed}.", "warning"
            )
        else:
            self._notices.settle("workspace")
        self._core.set_roots(roots)

    def touch(self, paths: Iterable[Path]) -> None:
        """Tell the index that these files may have changed on disk."""
        self._core.touch(paths)

    # -- documents ----------------------------------------------------------------------------------------------------

    def document(self, uri: str) -> Document | None:
        """Return the current version of an open document. If it is not open, log a warning and return None."""
        document = self._documents.get(uri)
        if document is None:
            log.warning("%s was never opened (textDocument/didOpen); the message about it is ignored", uri)
        return document

    def put(self, document: Document) -> None:
        """Store a new version of a document."""
        self._documents[document.uri] = document
        if path := local_path(document.uri):
            self._core.set_buffer(path, document.text, document.language_id)

    def drop(self, uri: str) -> None:
        """Close a document: cancel its requests, and index the file on disk instead of the document's text."""
        document = self._documents.pop(uri, None)
        self._records.pop(uri, None)
        self._outcomes.forget(uri)
        for tasks in (self._running, self._ahead):
            if task := tasks.pop(uri, None):
                task.cancel()
        if document is None:
            return
        if path := local_path(uri):
            self._core.set_buffer(path, None)
        self._spawn(self._core.forget(uri))

    # -- completions --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def latest(self, uri: str) -> Iterator[None]:
        """Register the current task as the document's request while the `with` block runs.

        This cancels the document's older request.
        """
        task = asyncio.current_task()
        assert task is not None
        if before := self._running.get(uri):
            before.cancel()
        self._running[uri] = task
        self._update(generating=len(self._running))
        try:
            yield
        finally:
            if self._running.get(uri) is task:
                del self._running[uri]
            self._update(generating=len(self._running))

    def place_of(self, uri: str, position: Position) -> tuple[Document, Place] | None:
        """Return the document and the place at which to complete, or None if nothing may be completed there.

        If the position is outside the document, log a warning.
        """
        document = self.document(uri)
        if document is None or not self.offers(document):
            return None
        place = document.locate(position, self.encoding)
        if place.note:
            log.warning("%s: %s; no completion", uri, place.note)
            return None
        return document, place

    def focus(self, uri: str, position: Position | None = None) -> None:
        """Evaluate the prompts of a document in advance, because the user now works in it.

        `position` is the cursor. If it is unknown, the place of the last completion is used, or else the end of the
        document. A cursor at the start of the document counts as unknown, because editors put the cursor there when
        they open a file.
        """
        document = self._documents.get(uri)
        if document is None or not self.offers(document):
            return
        if position in (None, (0, 0)):
            record = self._records.get(uri)
            position = record.position if record else None
        last = len(document.lines) - 1
        place = document.locate(position, self.encoding) if position else Place(last, len(document.lines[last]))
        if not self._saving("smaller", "invoked"):
            if before := self._ahead.get(uri):
                before.cancel()
            request = _request(document, document.split_at(place), "automatic")
            self._ahead[uri] = task = self._spawn(self._core.read_ahead(request))
            task.add_done_callback(lambda done: self._ahead.pop(uri) if self._ahead.get(uri) is done else None)

    def offers(self, document: Document) -> bool:
        """Return whether the settings allow completions in `document`."""
        return self.settings.enabled and document.language_id not in self.settings.disabled_languages

    async def complete(
        self, document: Document, place: Place, sides: tuple[str, str] | None = None, *, invoked: bool
    ) -> Record | None:
        """Complete at the cursor `place` of `document`, and return the record of the completion.

        If `sides` is not None, complete between these texts instead of those around the cursor: the user has selected
        an entry of the editor's completion menu, and the texts are as if the user had accepted it. Return None if
        nothing may be completed, or after a failure. Failures are reported to the user or logged, not raised.
        """
        resting = self._saving("invoked")
        self._update(resting=resting)
        if resting and not invoked:
            return None
        request = _request(document, document.split_at(place), "invoked" if invoked else "automatic")
        if not invoked and self._saving("smaller"):
            request = replace(request, multiline=False, ahead=False)
        self._outcomes.requested(request)
        if sides is not None:
            before, after = sides
            request = replace(request, cursor=replace(request.cursor, prefix=before, suffix=after))
        try:
            if not self._started.is_set():  # the first request may arrive before the settings
                await self._started.wait()
                if not self.offers(document):
                    return None
            completion = await self._core.complete(request)
        except Exception as error:  # bugs too, because editors show the user each error that they receive
            self._failed(error)
            return None
        if "engine" in completion.timings_ms:  # the engine has answered
            self._engine_works()
        if document.uri not in self._documents:  # the user has closed the document in the meantime
            return None
        position = document.position(place, self.encoding)
        record = Record(next(self._numbers), document.uri, position, request, completion)
        self._records.pop(document.uri, None)  # so that the newest record becomes the last one in the dict
        self._records[document.uri] = record
        if sides is None:
            self._outcomes.offered(record.number, request, completion)
        else:  # the user may select another entry, which says nothing about this suggestion
            self._outcomes.forget(document.uri)
        mark("answer", characters=len(completion.text), reason=completion.reason)
        if completion.reason:
            log.debug("no completion: %s", completion.reason)
        return record

    def _saving(self, *how: str) -> bool:
        """Return whether the setting `onBattery` is one of `how` and the machine runs on battery."""
        return self.settings.on_battery in how and self._power.on_battery()

    def happened(self, number: int, fate: Fate, candidate: int = 0) -> None:
        """Handle what the user did with the completion `number`.

        An acceptance, also of a part, is counted as the outcome of the suggestion, unless this outcome is already
        known. If the completion is the last one of its document, its record gets the `fate` and the `candidate`. After
        a full acceptance of the last one, the next completion is generated in advance, unless the setting `onBattery`
        prevents this. `candidate` is the index of the accepted text: 0 for `completion.text`, then those of
        `completion.others`.
        """
        if fate in {"accepted", "partly accepted"}:
            self._outcomes.accepted(number)
        for uri, record in self._records.items():
            if record.number == number:
                if record.fate == "accepted" and fate == "partly accepted":
                    return  # VS Code reports the last part of a suggestion after the whole suggestion
                self._records[uri] = replace(record, fate=fate, candidate=candidate)
                texts = (record.completion.text, *record.completion.others)
                if fate == "accepted" and 0 <= candidate < len(texts) and not self._saving("smaller", "invoked"):
                    self._core.look_ahead(record.request.after(texts[candidate]))
                return

    def _learn(self, request: Request, outcome: Outcome, p: float) -> None:
        self._spawn(self._core.learn(request, outcome, p))

    def record(self, uri: str | None) -> Record | None:
        """Return the record of the last completion in a document, or in any document if `uri` is None.

        Return None if there is no such completion.
        """
        if uri is not None:
            return self._records.get(uri)
        return next(reversed(self._records.values()), None)

    # -- what the core reports (lsp_server.core.Observer) --------------------------------------------------------------

    def engine_changed(self, state: EngineState, model: str, problem: str) -> None:
        """Report a new state of the engine to the client."""
        self._client.show_progress("model", None if state == "starting" else 1.0)
        self._update(engine=state, model=model, problem=problem)
        if problem:
            self._notices.tell("engine", problem)
        elif state == "ready":
            self._notices.settle("engine")

    def _engine_works(self) -> None:
        """Clear the reported problem of the engine, because it has answered a request."""
        self._notices.settle("engine")
        self._update(engine="ready", problem="")

    def indexing(self, progress: Progress) -> None:
        """Report the progress of indexing to the client."""
        share = 1.0 if progress.stage == "ready" else progress.done / max(progress.total, 1)
        self._client.show_progress("index", share)
        self._update(indexed=share)

    def generator_changed(self, problem: str) -> None:
        """Report why the configured generator is unavailable, or, if `problem` is "", that it is available again."""
        if problem == self._facts.replaced:
            return
        if problem and not self._facts.replaced:
            self._notices.tell("generator", problem, "warning")
        elif problem:  # the user knows that the generator is unavailable, so another reason is only logged
            log.info("%s", problem)
        else:
            log.info("the generator is available again")
            self._notices.settle("generator")
        self._update(replaced=problem)

    def notice(self, text: str) -> None:
        """Show `text` to the user once."""
        self._notices.tell(text, text, "info")

    # -- reporting ----------------------------------------------------------------------------------------------------

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, ModelError | EngineUnavailable):
            self._notices.tell("engine", str(error))
            self._update(problem=str(error))
        elif isinstance(error, RepoformerError):
            log.warning("no completion: %s", error)
        else:
            log.error("internal error", exc_info=error)

    def _update(self, **changes: object) -> None:
        self._facts = replace(self._facts, **changes)  # type: ignore[arg-type]
        self._tell_status()

    def _tell_status(self) -> None:
        status = status_of(self._facts)
        # LSP forbids notifications before `initialized`. When the session ends, the engine has no meaningful state.
        if status != self._status and self._started.is_set() and not self.stopped.is_set():
            self._status = status
            self._client.report(status)


def _request(document: Document, sides: tuple[str, str], trigger: Trigger) -> Request:
    path = str(local_path(document.uri) or "")  # empty for a buffer that was never saved
    language = language_of(path, document.language_id, sides[0][:SHEBANG_LENGTH] + sides[1][:SHEBANG_LENGTH])
    return Request(Cursor(path, *sides, language.id if language else ""), document.uri, trigger)
