"""A living workspace: folders and open buffers go in, immutable snapshots come out.

One thread, the writer, owns all that changes. Whatever happens (a file event, a keystroke in a buffer, a batch that
the workers finished, a merge) is an action in its queue. It gathers what belongs together, hands files to the workers,
puts their results in place and publishes a new `Snapshot` by one assignment. Readers take `snapshot` and never wait;
the writer itself only moves references and arrays, since reading, parsing and counting happen in other processes, and
walking the disk, loading, saving and merging on two helper threads.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from indexer.agenda import Agenda
from indexer.changes import Burst, lost_with
from indexer.document import Extract
from indexer.folder import Folder, Remembered
from indexer.parts import SMALL, Merge, Parts, Place
from indexer.pool import Pool
from indexer.rules import Entry, Reason
from indexer.segment import Segment
from indexer.settings import IndexSettings
from indexer.snapshot import Snapshot
from indexer.store import tidy
from indexer.watching import Watcher
from indexer.worker import Outcome, Task

_log = logging.getLogger(__name__)

BUFFER_QUIET, BUFFER_LATEST = 0.15, 1.0  # seconds; an open buffer changes with each keystroke
PUBLISH_EVERY = 0.25  # seconds between snapshots while many files are still to come
RESCAN_FROM = 1_000  # touched paths in one burst from which on the system may have dropped events


@dataclass(frozen=True, slots=True)
class Progress:
    """How far indexing has come: `done` of `total` files; `stage` is "ready" when nothing is left to do."""

    stage: Literal["scan", "read", "ready"]
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class _Buffer:
    text: str
    lsp_id: str


# A file's time of change, size and digest when it was last read. A tuple of plain values, since there may be 40,000 of
# them: the garbage collector does not look at such tuples.
_Known = tuple[int, int, bytes]


class WorkspaceIndex:
    """The index of some folders, kept up to date from `start` to `close`. Any thread may call any method."""

    def __init__(
        self,
        roots: Sequence[Path],
        settings: IndexSettings | None = None,
        *,
        cache_dir: Path | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        """Prepare an index; nothing runs before `start`.

        `cache_dir` is where indexes are saved between runs (None: they are not). `on_progress` is called on the
        writer's thread and must return at once.
        """
        self.settings = settings or IndexSettings()
        self._cache_dir = cache_dir
        self._on_progress = on_progress or (lambda progress: None)
        self._roots = [Path(root).absolute() for root in roots]

        self._actions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle, self._idle_lock = threading.Event(), threading.Lock()
        self._closing = False
        self._writer = threading.Thread(target=self._write, name="index-writer", daemon=True)
        self._disk = ThreadPoolExecutor(1, "index-disk")
        self._merger = ThreadPoolExecutor(1, "index-merger")
        self._pool = Pool(self.settings.worker_count(), lambda outcomes: self._post(lambda: self._done(outcomes)))
        self._watcher = Watcher(self.touch)
        self._snapshot = Snapshot(retriever=self.settings.retriever, query_lines=self.settings.query_lines)

        # What follows is the writer's alone.
        self._folders: dict[str, Folder] = {}
        self._inner: dict[str, tuple[str, ...]] = {}  # for each folder the others inside it, as "path/in/it/"
        self._parts = Parts()
        self._known: dict[Place, _Known] = {}
        self._buffers: dict[str, _Buffer] = {}  # every open document, in the workspace or not, by its absolute path
        self._touched, self._typed = Burst(), Burst(BUFFER_QUIET, BUFFER_LATEST)
        self._agenda = Agenda()
        self._batches = 0  # in the workers' hands
        self._helpers = 0  # jobs on the helper threads whose result is awaited
        self._merging = False
        self._changed = False
        self._published_at = self._told_at = 0.0
        self._next_poll = float("inf")
        self._read = 0  # files since the index was last idle
        self._said: set[str] = set()

    # For everybody ----------------------------------------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot:
        """The newest snapshot; empty until the first files are read."""
        return self._snapshot

    def start(self) -> None:
        """Begin to index; returns at once."""
        self._writer.start()
        self._pool.start()
        if (cache := self._cache_dir) is not None:
            self._on_disk(lambda: tidy(cache, max_bytes=self.settings.cache_bytes))
        self.set_roots(self._roots)

    def close(self) -> None:
        """Stop all that runs; what was indexed stays saved. May be called twice."""
        if self._closing:
            return
        self._closing = True
        self._watcher.stop()
        if self._writer.is_alive():
            self._post(lambda: None)
            self._writer.join()
        self._pool.close()
        for folder in self._folders.values():
            self._on_disk(folder.close)
        self._disk.shutdown()
        self._merger.shutdown()

    def set_roots(self, roots: Sequence[Path]) -> None:
        """Index these folders from now on; those that stay are not read again."""
        wanted = list(dict.fromkeys(str(Path(root).absolute()) for root in roots))
        self._post(lambda: self._change_roots(wanted))

    def set_buffer(self, path: str | Path, text: str | None, lsp_id: str = "") -> None:
        """Let an open document's text stand for the file; None ends that, and the disk counts again."""
        name = str(Path(path).absolute())
        buffer = None if text is None else _Buffer(text, lsp_id)
        self._post(lambda: self._type(name, buffer))

    def touch(self, paths: Iterable[str | Path]) -> None:
        """Say that something may have changed at these absolute paths (files or folders, there or gone)."""
        names = [str(path) for path in paths]
        self._post(lambda: self._touch(names))

    def rescan(self) -> None:
        """Compare all folders with the disk."""
        self._post(lambda: self._scan(list(self._folders)))

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until all that was said so far is indexed and published; False if it took longer than `timeout` s."""
        return self._idle.wait(timeout)

    # The writer -------------------------------------------------------------------------------------------------

    def _post(self, action: Callable[[], None]) -> None:
        with self._idle_lock:
            self._idle.clear()
            self._actions.put(action)

    def _write(self) -> None:
        while not self._closing:
            try:
                action = self._actions.get(timeout=self._pause())
            except queue.Empty:
                action = None
            # A bug in one step must not end the thread that all others rely on.
            for step in (action, self._look, self._hand_out, self._merge, self._publish, self._rest):
                try:
                    if step is not None:
                        step()
                except Exception:
                    _log.exception("an index update failed")

    def _pause(self) -> float | None:
        """Return how long the writer may sleep if nobody says anything; None for ever."""
        due = min(self._touched.due(), self._typed.due(), self._next_poll)
        if self._changed:
            due = min(due, self._published_at + PUBLISH_EVERY)
        return None if due == float("inf") else max(due - time.monotonic(), 0.0)

    def _publish(self) -> None:
        """Make what changed visible to readers, at once unless much more is about to come."""
        now = time.monotonic()
        if self._changed and not (self._agenda.long and now < self._published_at + PUBLISH_EVERY):
            self._changed, self._published_at = False, now
            self._snapshot = replace(
                self._snapshot,
                roots=tuple(self._folders),
                parts=self._parts.current,
                version=self._snapshot.version + 1,
            )

    def _rest(self) -> None:
        """Call the index idle if nothing at all is left to do."""
        waiting = self._touched or self._typed or self._agenda or self._changed
        if waiting or self._batches or self._helpers or self._merging:
            return
        with self._idle_lock:
            if self._actions.empty() and not self._idle.is_set():
                self._idle.set()
                self._read = 0
                self._on_progress(Progress("ready", self._snapshot.files, self._snapshot.files))

    def _help(self, helper: ThreadPoolExecutor, work: Callable[[], Callable[[], None]]) -> None:
        """Do work on a helper thread, and then what it returned on the writer's."""
        self._helpers += 1

        def finish(then: Callable[[], None] | None) -> None:
            self._helpers -= 1
            if then is not None:
                then()

        def run() -> None:
            then = None
            try:
                then = work()
            except Exception:
                _log.exception("an index job failed")
            self._post(lambda: finish(then))

        helper.submit(run)

    def _on_disk(self, work: Callable[[], object]) -> None:
        """Do work on the disk thread that nobody waits for."""
        self._disk.submit(work).add_done_callback(_log_failure)

    # Folders ----------------------------------------------------------------------------------------------------

    def _change_roots(self, wanted: Sequence[str]) -> None:
        for name in [name for name in self._folders if name not in wanted]:
            self._on_disk(self._folders.pop(name).close)
            self._agenda.drop(name)
        stay, new = list(self._folders), [name for name in wanted if name not in self._folders]
        folders = self._folders | {name: Folder(Path(name), self.settings, self._cache_dir) for name in new}
        # Of nested folders the inner one comes first, so that its files are its own.
        self._folders = dict(sorted(folders.items(), key=lambda item: (-len(item[0]), item[0])))
        self._inner = {root: _inside(root, self._folders) for root in self._folders}
        self._leave([place for place in self._known if not self._belongs(place)])
        self._changed = True
        for name in new:
            self._load(name)
        if self.settings.watch:
            problem = self._watcher.start([Path(name) for name in wanted])
            self._next_poll = time.monotonic() + self.settings.poll_seconds if problem else float("inf")
            if problem:
                self._say(f"{problem}; the disk is compared every {self.settings.poll_seconds:.0f} s instead")
        # A folder inside of another takes files from it or gives them back; and while a watcher starts, none watches.
        self._agenda.hurry(self._opened())
        self._scan(stay)

    def _load(self, root: str) -> None:
        """Bring back a folder's saved index, then compare it with the disk."""
        folder = self._folders[root]
        self._on_progress(Progress("scan", 0, 0))

        def work() -> Callable[[], None]:
            remembered = folder.load()
            segment = Segment.build([file.extract for file in remembered if file.extract is not None])
            return lambda: self._loaded(root, remembered, segment)

        self._help(self._disk, work)

    def _loaded(self, root: str, remembered: Sequence[Remembered], segment: Segment) -> None:
        if root not in self._folders:
            return
        for file in remembered:
            self._known.setdefault((root, file.entry.path), (file.entry.mtime_ns, file.entry.size, file.digest))
        if segment.documents:
            self._parts.include(segment)
            self._changed = True
        self._leave([place for file in remembered if not self._belongs(place := (root, file.entry.path))])
        self._agenda.hurry(self._opened())
        self._scan([root])

    def _scan(self, roots: Sequence[str]) -> None:
        for root in roots:

            def work(
                root: str = root, folder: Folder = self._folders[root], inner: tuple[str, ...] = self._inner[root]
            ) -> Callable[[], None]:
                entries, problems = folder.scan(inner)
                return lambda: self._scanned(root, entries, problems)

            self._help(self._disk, work)

    def _scanned(self, root: str, entries: Sequence[Entry], problems: Sequence[Reason]) -> None:
        if root not in self._folders:
            return
        for problem in problems:
            self._say(str(problem))
        found = {(root, entry.path): entry for entry in entries}
        known, opened = self._known, self._opened()
        self._agenda.hurry([place for place in self._places() if place[0] == root and place not in found])
        self._agenda.add(
            place
            for place, entry in found.items()
            if known.get(place, ())[:2] != (entry.mtime_ns, entry.size) and place not in opened
        )

    # Changes ----------------------------------------------------------------------------------------------------

    def _touch(self, paths: Sequence[str]) -> None:
        now = time.monotonic()
        for path in paths:
            self._touched.add(path, now)

    def _type(self, path: str, buffer: _Buffer | None) -> None:
        place = self._place(path)
        if buffer is not None:
            self._buffers[path] = buffer
            if place is not None:
                self._typed.add(path, time.monotonic())
        elif self._buffers.pop(path, None) is not None and place is not None:
            self._agenda.hurry([place])

    def _look(self) -> None:
        """Turn paths that are due into files to read, or into a scan where single files do not say it."""
        now = time.monotonic()
        self._agenda.hurry(place for path in self._typed.take(now) if (place := self._place(path)))
        paths = self._touched.take(now)
        missing: set[str] = set()
        scan = set(self._folders) if len(paths) >= RESCAN_FROM else set()
        for path in paths:
            if (place := self._place(path)) is None:
                continue
            root, name = place
            if self._folders[root].is_rule(name):
                self._folders[root].renew_rules()
                scan.add(root)
            elif self._folders[root].rules.passes_over(name):
                continue
            elif place in self._known or place in self._agenda or Path(path).is_file():
                self._agenda.hurry([place])
            elif Path(path).is_dir():
                if self._folders[root].rules.enters(name):
                    scan.add(root)
            else:
                missing.add(Path(path).as_posix())
        if missing:
            self._agenda.hurry(lost_with(missing, self._places()))
        if now >= self._next_poll:
            self._next_poll = now + self.settings.poll_seconds
            scan.update(self._folders)
        if scan:
            self._scan(sorted(scan))

    def _place(self, path: str) -> Place | None:
        """Return the folder that a path lies in (the innermost) and its name there."""
        for root in self._folders:
            if path.startswith(root) and path != root and (pure := Path(path)).is_relative_to(root):
                return root, pure.relative_to(root).as_posix()
        return None

    def _belongs(self, place: Place) -> bool:
        """Tell whether a file lies in a folder of the workspace, and in no folder inside that one."""
        root, path = place
        return root in self._folders and not path.startswith(self._inner[root])

    def _places(self) -> set[Place]:
        """Return the files that the index knows or that are on their way into it."""
        return {*self._known, *self._agenda}

    def _opened(self) -> set[Place]:
        """Return the files of the workspace that are open documents."""
        return {place for path in self._buffers if (place := self._place(path)) is not None}

    # Files ------------------------------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        """Keep each worker busy with one batch and have one more waiting."""
        while self._batches <= self._pool.size and (places := self._agenda.take(self._size)):
            tasks = []
            for place in places:
                task = self._task(place)
                if isinstance(task, Task):
                    tasks.append(task)
                else:
                    self._agenda.done([place])
                    self._leave([place])
            if tasks:
                self._batches += 1
                self._pool.submit(tasks)

    def _size(self, place: Place) -> int:
        return self._known[place][1] if place in self._known else 12_000

    def _task(self, place: Place) -> Task | Reason:
        root, path = place
        if not self._belongs(place):
            return Reason("outside", path)
        chunking, most = self.settings.chunking, self.settings.max_file_bytes
        if (buffer := self._buffers.get(str(Path(root, path)))) is not None:
            reason = self._folders[root].rules.why_not(path, size=len(buffer.text))
            return reason or Task(root, path, chunking, most, buffer.text, buffer.lsp_id)
        reason = self._folders[root].rules.why_not(path)
        digest = self._known[place][2] if place in self._known else b""
        return reason or Task(root, path, chunking, most, known=digest, store=self._folders[root].store_file)

    def _done(self, outcomes: Sequence[Outcome]) -> None:
        """Put a batch's results in place."""
        self._batches -= 1
        self._read += len(outcomes)
        self._agenda.done((outcome.root, outcome.path) for outcome in outcomes)
        outcomes = [outcome for outcome in outcomes if self._belongs((outcome.root, outcome.path))]
        extracts, gone = [], []
        for outcome in outcomes:
            place = (outcome.root, outcome.path)
            if outcome.reason is not None:
                gone.append(place)
                if outcome.reason.rule == "unreadable":
                    self._say(str(outcome.reason))
            elif outcome.record is not None:
                extracts.append(Extract.from_bytes(*place, outcome.record))
            elif place not in self._known or self._known[place][2] != outcome.digest:
                # It has not changed, but the index meanwhile let go of what it has not changed from.
                self._agenda.hurry([place])
                continue
            if outcome.digest:
                # A buffer's text is not on the disk: it must look changed once the buffer is closed.
                self._known[place] = (outcome.mtime_ns, outcome.size, outcome.digest)
            else:
                self._known.pop(place, None)
        if extracts or gone:
            self._parts.apply(extracts, gone)
            self._changed = True
        opened = self._opened()
        for root in {outcome.root for outcome in outcomes}:
            mine = [o for o in outcomes if o.root == root and (o.root, o.path) not in opened and o.mtime_ns]
            if mine:
                self._on_disk(partial(self._folders[root].save, mine))
        now = time.monotonic()
        if self._agenda and now > self._told_at + PUBLISH_EVERY:
            self._told_at = now
            self._on_progress(Progress("read", self._read, self._read + len(self._agenda)))

    def _leave(self, places: Sequence[Place]) -> None:
        """Take files out of the index, and out of what is saved of the folders that stay."""
        places = [place for place in places if place in self._known or place in self._parts.places]
        if not places:
            return
        self._parts.apply((), places)
        self._changed = True
        for place in places:
            self._known.pop(place, None)
        for root in {root for root, _ in places} & self._folders.keys():
            self._on_disk(partial(self._folders[root].forget, [path for at, path in places if at == root]))

    def _merge(self) -> None:
        """Merge parts where there are many: small ones at once, large ones beside the writer."""
        while not self._merging and (merge := self._parts.next_merge(tidy=not self._agenda)):
            if len(merge) <= SMALL:
                self._parts.adopt(merge, merge.run())
                self._changed = True
                continue
            self._merging = True
            self._help(self._merger, partial(self._merged, merge))

    def _merged(self, merge: Merge) -> Callable[[], None]:
        segment: Segment | None = None
        try:
            segment = merge.run()
        except Exception:  # no memory, for one
            _log.exception("%d parts of the index are not merged", len(merge.numbers))

        def adopt() -> None:
            self._merging = False
            if segment is None:
                self._parts.leave(merge)
                return
            self._parts.adopt(merge, segment)
            self._changed = True

        return adopt

    def _say(self, message: str) -> None:
        """Log a message the first time."""
        if message not in self._said:
            self._said.add(message)
            _log.warning("%s", message)


def _inside(root: str, folders: Iterable[str]) -> tuple[str, ...]:
    """Return which folders lie inside of one, as the beginnings that the paths of their files have in it."""
    inner = [Path(other) for other in folders if other != root and Path(other).is_relative_to(root)]
    return tuple(f"{folder.relative_to(root).as_posix()}/" for folder in inner)


def _log_failure(job: Future[object]) -> None:
    if (error := job.exception()) is not None:
        _log.error("what was indexed could not be saved", exc_info=error)
