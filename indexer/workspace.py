"""An index that follows a workspace: folders and open buffers go in, immutable snapshots come out.

One thread, the writer, owns all mutable state. Everything that happens (a file event, a keystroke in a buffer, a batch
that the workers finished, a merge) is an action in its queue. The writer groups related changes, sends files to the
workers, applies their results, and publishes a new `Snapshot` by one assignment. Readers use `snapshot` and never wait.
The writer itself does only short work: reading, parsing and counting run in other processes, and of the two helper
threads (`indexer.jobs`), one scans the disk, loads and saves, and the other merges large segments.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from indexer.buffers import Buffer, Buffers
from indexer.debouncer import Debouncer, files_in_deleted
from indexer.document import Extract
from indexer.folder import Folder, LoadedFile
from indexer.jobs import JobThread
from indexer.locations import FileKey, Locations
from indexer.pool import Pool
from indexer.read_queue import ReadQueue
from indexer.rules import Entry, Reason, printable
from indexer.scans import MISSING, ScanSchedule
from indexer.segment import Segment
from indexer.segment_list import SMALL, Merge, SegmentList
from indexer.settings import IndexSettings
from indexer.snapshot import Snapshot
from indexer.store import delete_old_indexes
from indexer.watching import Watcher
from indexer.worker import Outcome, Task

_log = logging.getLogger(__name__)

BUFFER_QUIET, BUFFER_LATEST = 0.15, 1.0  # seconds; longer than for files, because a buffer changes at each keystroke
PUBLISH_EVERY = 0.25  # seconds between snapshots while many files are left to read
CLOSE_SECONDS = 0.8  # how long `close` waits for results to be saved
RESCAN_FROM = 1_000  # if this many paths change at once, events may be missing, so all folders are scanned


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of indexing: `done` of `total` files.

    `stage` is "ready" when the index is up to date.
    """

    stage: Literal["scan", "read", "ready"]
    done: int
    total: int


# A file's modification time, size and digest when it was last read. There may be 40,000 of these. They are tuples,
# because the garbage collector does not track tuples of plain values.
_Known = tuple[int, int, bytes]


class WorkspaceIndex:
    """The index of some folders, which is updated from `start` until `close`.

    Any thread may call any method.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        settings: IndexSettings | None = None,
        *,
        cache_dir: Path | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        """Prepare an index. Nothing runs before `start`.

        `cache_dir` is the directory for saved indexes (None: do not save). `on_progress` is called on the writer's
        thread and must return immediately.
        """
        self.settings = settings or IndexSettings()
        self._cache_dir = cache_dir
        self._on_progress = on_progress or (lambda progress: None)
        self._roots = [Path(root).absolute() for root in roots]

        self._actions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle, self._idle_lock = threading.Event(), threading.Lock()
        self._closing = False
        self._writer = threading.Thread(target=self._run_writer, name="index-writer", daemon=True)
        self._disk, self._merger = JobThread("index-disk"), JobThread("index-merger")
        self._pool = Pool(
            self.settings.worker_count(), lambda outcomes: self._post(lambda: self._apply_outcomes(outcomes))
        )
        self._watcher = Watcher(self.touch)
        self._snapshot = Snapshot(retriever=self.settings.retriever, query_lines=self.settings.query_lines)

        # Only the writer's thread uses the attributes below.
        self._folders: dict[str, Folder] = {}
        self._locations = Locations()
        self._scans = ScanSchedule(self.settings.poll_seconds)
        self._segments = SegmentList()
        self._known: dict[FileKey, _Known] = {}
        self._buffers = Buffers()  # every open document, in the workspace or not
        self._changed_paths, self._changed_buffers = Debouncer(), Debouncer(BUFFER_QUIET, BUFFER_LATEST)
        self._read_queue = ReadQueue()
        self._other_files: set[str] = set()  # changed since the last scan, and were not in the index
        self._pending_batches = 0  # batches that the workers have not finished
        self._helper_jobs = 0  # jobs on the helper threads that have not returned a result
        self._merging = False
        self._changed = False
        self._published_at = self._progress_at = 0.0
        self._compacted = not self._cache_dir
        self._files_read = 0  # the number of files read since the index was last idle
        self._warned: set[str] = set()

    # -- public methods -----------------------------------------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot:
        """The newest snapshot. It is empty until the first files are read."""
        return self._snapshot

    def start(self) -> None:
        """Start indexing, and return immediately."""
        self._writer.start()
        self._pool.start()
        if (cache := self._cache_dir) is not None:
            self._disk.submit(lambda: delete_old_indexes(cache, max_bytes=self.settings.cache_bytes))
        self.set_roots(self._roots)

    def close(self) -> None:
        """Stop all threads and processes, within a second. The saved index remains. May be called twice."""
        if self._closing:
            return
        self._closing = True  # this also ends a running scan
        end = time.monotonic() + CLOSE_SECONDS
        if self._writer.is_alive():
            self._post(lambda: None)
            self._writer.join(CLOSE_SECONDS)
        self._watcher.stop()
        self._pool.close()
        for folder in list(self._folders.values()):
            folder.interrupt()
            self._disk.submit(folder.close)
        if not self._disk.close(max(end - time.monotonic(), 0.1)):
            _log.info("the disk does not respond; a part of the index is not saved")
        self._merger.close(0.0)

    def set_roots(self, roots: Sequence[Path]) -> None:
        """Index these folders from now on. Folders that were indexed before are not read again."""
        wanted = list(dict.fromkeys(str(Path(root).absolute()) for root in roots))
        self._post(lambda: self._change_roots(wanted))

    def set_buffer(self, path: str | Path, text: str | None, lsp_id: str = "") -> None:
        """Index an open document's text instead of its file. If `text` is None, index the file again."""
        name = str(Path(path).absolute())
        buffer = None if text is None else Buffer(text, lsp_id)
        self._post(lambda: self._change_buffer(name, buffer))

    def touch(self, paths: Iterable[str | Path]) -> None:
        """Report that something may have changed at these absolute paths.

        They may be files or directories, and need not exist any more.
        """
        names = [str(path) for path in paths]
        self._post(lambda: self._touch(names))

    def rescan(self) -> None:
        """Compare all folders with the disk."""
        self._post(lambda: self._scan(self._folders))

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until all changes reported so far are indexed and published.

        Return False if this takes longer than `timeout` seconds.
        """
        return self._idle.wait(timeout)

    # -- the writer ---------------------------------------------------------------------------------------------------

    def _post(self, action: Callable[[], None]) -> None:
        with self._idle_lock:
            self._idle.clear()
            self._actions.put(action)

    def _run_writer(self) -> None:
        while not self._closing:
            try:
                action = self._actions.get(timeout=self._pause())
            except queue.Empty:
                action = None
            # A bug in one action must not end the writer's thread.
            for step in (
                action,
                self._process_changes,
                self._submit_batches,
                self._merge,
                self._publish,
                self._update_idle,
            ):
                try:
                    if step is not None:
                        step()
                except Exception:
                    _log.exception("an index update failed")

    def _pause(self) -> float | None:
        """Return the seconds until the next scheduled work, or None if nothing is scheduled."""
        due = min(self._changed_paths.due(), self._changed_buffers.due(), self._scans.due())
        if self._changed:
            due = min(due, self._published_at + PUBLISH_EVERY)
        return None if due == float("inf") else max(due - time.monotonic(), 0.0)

    def _publish(self) -> None:
        """Publish a new snapshot if something has changed. While many files are left, do so only at intervals."""
        now = time.monotonic()
        if self._changed and not (self._read_queue.is_long and now < self._published_at + PUBLISH_EVERY):
            self._changed, self._published_at = False, now
            self._snapshot = replace(
                self._snapshot,
                roots=tuple(self._locations.roots),
                real_roots=tuple(self._locations.roots.values()),
                segments=self._segments.current,
                version=self._snapshot.version + 1,
            )

    def _update_idle(self) -> None:
        """Mark the index as idle if nothing is left to do."""
        waiting = self._changed_paths or self._changed_buffers or self._read_queue or self._changed
        if waiting or self._pending_batches or self._helper_jobs or self._merging:
            return
        with self._idle_lock:
            if self._actions.empty() and not self._idle.is_set():
                self._idle.set()
                self._files_read = 0
                if not self._compacted:  # compact only once, when no other job needs the disk
                    self._compacted = True
                    for folder in self._folders.values():
                        self._disk.submit(folder.compact)
                self._on_progress(Progress("ready", self._snapshot.files, self._snapshot.files))

    def _run_on_helper(self, helper: JobThread, work: Callable[[], Callable[[], None]]) -> None:
        """Run `work` on a helper thread, then run the function that it returns on the writer's thread."""
        self._helper_jobs += 1

        def finish(then: Callable[[], None] | None) -> None:
            self._helper_jobs -= 1
            if then is not None:
                then()

        def run() -> None:
            then = None
            try:
                then = work()
            finally:
                self._post(lambda: finish(then))

        helper.submit(run)

    # -- folders ------------------------------------------------------------------------------------------------------

    def _change_roots(self, names: Sequence[str]) -> None:
        self._locations = Locations(names)
        wanted = self._locations.roots
        for name in [name for name in self._folders if name not in wanted]:
            self._disk.submit(self._folders.pop(name).close)
            self._read_queue.remove_root(name)
            self._scans.remove(name)
        stay, new = list(self._folders), [name for name in wanted if name not in self._folders]
        for name in new:
            self._folders[name] = Folder(Path(name), self.settings, self._cache_dir)
        self._remove_files([key for key in self._known if not self._locations.has(key)])
        self._changed = True
        if self.settings.watch:
            self._watcher.set_roots(list(wanted.values()))
        for name in new:
            self._load(name)
        # A new or removed folder inside another one changes which folder the open files belong to.
        self._read_queue.add_first(self._open_files())
        self._scan(stay)

    def _load(self, root: str) -> None:
        """Load a folder's saved index, then compare it with the disk."""
        folder = self._folders[root]
        self._on_progress(Progress("scan", 0, 0))

        def work() -> Callable[[], None]:
            try:
                loaded = folder.load()
                segment = Segment.build([file.extract for file in loaded if file.extract is not None])
            except Exception:  # without the saved index, all files are read
                _log.exception("cannot load the saved index of %s", root)
                loaded, segment = [], Segment.build(())
            return lambda: self._loaded(root, loaded, segment)

        self._run_on_helper(self._disk, work)

    def _loaded(self, root: str, loaded: Sequence[LoadedFile], segment: Segment) -> None:
        if root not in self._folders:
            return
        for file in loaded:
            self._known.setdefault((root, file.entry.path), (file.entry.mtime_ns, file.entry.size, file.digest))
        if segment.documents:
            self._segments.include(segment)
            self._changed = True
        self._remove_files([key for file in loaded if not self._locations.has(key := (root, file.entry.path))])
        self._read_queue.add_first(self._open_files())
        self._scan([root])

    def _scan(self, roots: Iterable[str]) -> None:
        now = time.monotonic()
        for root in roots:
            if self._scans.request(root, now):
                self._run_on_helper(self._disk, partial(self._scan_now, root, self._folders[root], self._locations))

    def _scan_now(self, root: str, folder: Folder, locations: Locations) -> Callable[[], None]:
        """Compare a folder with the disk, on the disk thread. Each directory is watched before it is listed."""
        real = locations.roots[root]

        def watch(directory: str) -> None:
            if self.settings.watch:
                self._watcher.watch(real, os.path.join(real, directory) if directory else real)  # noqa: PTH118

        try:
            entries, problems = folder.scan(locations.inner(root), watch, lambda: self._closing)
        except Exception:  # after a bug, the index keeps the folder's files, and scans the folder again later
            _log.exception("cannot scan %s", root)
            return lambda: self._scan_ended(root, folder, has_events=False)
        if not self._closing:
            watch(os.path.join(".git", "info"))  # noqa: PTH118 - whose `exclude` file changes what is indexed
        return lambda: self._scanned(root, folder, entries, problems)

    def _scanned(self, root: str, folder: Folder, entries: Sequence[Entry], problems: Sequence[Reason]) -> None:
        if self._folders.get(root) is not folder or self._closing:
            return
        for problem in problems:
            self._warn_once(str(problem))
        self._other_files.clear()
        found = {(root, entry.path): entry for entry in entries}
        known, opened = self._known, self._open_files()
        self._read_queue.add_first([key for key in self._all_files() if key[0] == root and key not in found])
        self._read_queue.add(
            key
            for key, entry in found.items()
            if known.get(key, ())[:2] != (entry.mtime_ns, entry.size) and key not in opened
        )
        self._scan_ended(root, folder, has_events=not self._missing_events(root))

    def _scan_ended(self, root: str, folder: Folder, *, has_events: bool) -> None:
        is_current = self._folders.get(root) is folder
        if is_current and self._scans.finish(root, time.monotonic(), has_events=has_events):
            self._scan([root])

    def _missing_events(self, root: str) -> str:
        """Return why a folder's events are incomplete ("" if they are not), and log a new reason."""
        problem = self._watcher.problem(self._locations.roots[root]) if self.settings.watch else ""
        if problem and problem != MISSING:  # a missing folder was reported when listing it failed
            seconds = self.settings.poll_seconds
            self._warn_once(f"{root} is compared with the disk at intervals of {seconds:.0f} s or more: {problem}")
        return problem

    # -- changes ------------------------------------------------------------------------------------------------------

    def _touch(self, paths: Sequence[str]) -> None:
        now = time.monotonic()
        for path in paths:
            self._changed_paths.add(path, now)

    def _change_buffer(self, name: str, buffer: Buffer | None) -> None:
        if buffer is not None:
            changed = self._buffers.put(name, self._locations.real_document(name), buffer)
            for real in changed:
                if self._locations.key(real) is not None:
                    self._changed_buffers.add(real, time.monotonic())
        else:
            changed = self._buffers.remove(name)
            self._read_queue.add_first(key for real in changed if (key := self._locations.key(real)))

    def _process_changes(self) -> None:
        """Queue the changed files that are due. Scan a folder if it is unknown which of its files have changed."""
        now = time.monotonic()
        buffers = self._changed_buffers.take(now)
        self._read_queue.add_first(key for real in buffers if (key := self._locations.key(real)))
        paths = self._changed_paths.take(now)
        missing: set[str] = set()
        scan = set(self._folders) if len(paths) >= RESCAN_FROM else set()
        for path in paths:
            real = self._locations.real_entry(path)
            # The event for a new or deleted directory does not name the workspace folders in it.
            scan.update(self._locations.at_or_below(real))
            if (key := self._locations.key(real)) is None:
                continue
            root, name = key
            rules = self._folders[root].rules
            if self._folders[root].is_rule(name):
                self._folders[root].reload_rules()
                scan.add(root)
                continue
            if rules.never_indexes(name):
                continue
            was_file = key in self._known or key in self._read_queue
            is_directory = os.path.isdir(real) and not os.path.islink(real)  # noqa: PTH112, PTH114
            is_file = not is_directory and os.path.isfile(real)  # noqa: PTH113
            if was_file or is_file:
                self._read_queue.add_first([key])
            if is_directory:
                if rules.enters(name):
                    scan.add(root)
            elif not was_file and self._may_replace_directory(real, is_file=is_file):
                missing.add(Path(root, name).as_posix())
        if missing:
            self._read_queue.add_first(files_in_deleted(missing, self._all_files()))
        scan.update(root for root in self._scans.take(now) if root in self._folders)
        if scan:
            self._scan(sorted(scan))

    def _may_replace_directory(self, real: str, *, is_file: bool) -> bool:
        """Return whether there may have been a directory with this path, which is now a new file or does not exist.

        Looking for the files of a directory takes time, so this is false for a file that changes again, such as a log.
        """
        if not is_file:
            self._other_files.discard(real)
            return True
        is_new = real not in self._other_files
        self._other_files.add(real)
        return is_new

    def _all_files(self) -> set[FileKey]:
        """Return the files in the index and in the queue."""
        return {*self._known, *self._read_queue}

    def _open_files(self) -> set[FileKey]:
        """Return the workspace files that are open documents."""
        return {key for real in self._buffers if (key := self._locations.key(real)) is not None}

    # -- files --------------------------------------------------------------------------------------------------------

    def _submit_batches(self) -> None:
        """Keep one batch for each worker in progress, and one more queued."""
        while self._pending_batches <= self._pool.size and (keys := self._read_queue.take_batch(self._size)):
            tasks = []
            for key in keys:
                task = self._task_or_reason(key)
                if isinstance(task, Task):
                    tasks.append(task)
                else:
                    self._read_queue.finish([key])
                    self._remove_files([key])
            if tasks:
                self._pending_batches += 1
                self._pool.submit(tasks)

    def _size(self, key: FileKey) -> int:
        return self._known[key][1] if key in self._known else 12_000

    def _task_or_reason(self, key: FileKey) -> Task | Reason:
        try:
            return self._task(key)
        except Exception as error:  # after a bug, the other files of the batch are still read
            _log.exception("cannot check %s", printable(key[1]))
            return Reason("unreadable", f"{key[1]}: {error}")

    def _task(self, key: FileKey) -> Task | Reason:
        root, path = key
        if not self._locations.has(key):
            return Reason("outside", path)
        chunking, most = self.settings.chunking, self.settings.max_file_bytes
        if (buffer := self._buffers.get(self._locations.real(key))) is not None:
            reason = self._folders[root].rules.why_not(path, buffer=buffer.text, lsp_id=buffer.lsp_id)
            return reason or Task(root, path, chunking, most, buffer.text, buffer.lsp_id)
        reason = self._folders[root].rules.why_not(path)
        digest = self._known[key][2] if key in self._known else b""
        return reason or Task(root, path, chunking, most, known=digest, store=self._folders[root].store_file)

    def _apply_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Apply the results of a batch to the index."""
        self._pending_batches -= 1
        self._files_read += len(outcomes)
        self._read_queue.finish((outcome.root, outcome.path) for outcome in outcomes)
        outcomes = [outcome for outcome in outcomes if self._locations.has((outcome.root, outcome.path))]
        extracts, gone = [], []
        for outcome in outcomes:
            key = (outcome.root, outcome.path)
            if outcome.reason is not None:
                gone.append(key)
                if outcome.reason.rule == "unreadable":
                    self._warn_once(str(outcome.reason))
            elif outcome.record is not None:
                extracts.append(Extract.from_bytes(*key, outcome.record))
            elif key not in self._known or self._known[key][2] != outcome.digest:
                # The worker found the file unchanged, so it sent no chunks. But the index has removed the file's chunks
                # since then.
                self._read_queue.add_first([key])
                continue
            if outcome.digest:
                # For the text of a buffer, `mtime_ns` is 0, so the file counts as changed when the buffer is closed.
                self._known[key] = (outcome.mtime_ns, outcome.size, outcome.digest)
            else:
                self._known.pop(key, None)
        if extracts or gone:
            self._segments.apply(extracts, gone)
            self._changed = True
        opened = self._open_files()
        for root in {outcome.root for outcome in outcomes}:
            mine = [o for o in outcomes if o.root == root and (o.root, o.path) not in opened and not o.from_buffer]
            if mine:
                self._disk.submit(partial(self._folders[root].save, mine))
        now = time.monotonic()
        if self._read_queue and now > self._progress_at + PUBLISH_EVERY:
            self._progress_at = now
            self._on_progress(Progress("read", self._files_read, self._files_read + len(self._read_queue)))

    def _remove_files(self, keys: Sequence[FileKey]) -> None:
        """Remove files from the index, and from the saved indexes of folders that are still open."""
        keys = [key for key in keys if key in self._known or key in self._segments.files]
        if not keys:
            return
        self._segments.apply((), keys)
        self._changed = True
        for key in keys:
            self._known.pop(key, None)
        for root in {root for root, _ in keys} & self._folders.keys():
            self._disk.submit(partial(self._folders[root].forget, [path for at, path in keys if at == root]))

    def _merge(self) -> None:
        """Merge segments where there are many: small ones immediately, large ones on a helper thread."""
        while not self._merging and (merge := self._segments.next_merge(tidy=not self._read_queue)):
            if len(merge) <= SMALL:
                self._segments.adopt(merge, merge.run())
                self._changed = True
                continue
            self._merging = True
            self._run_on_helper(self._merger, partial(self._merged, merge))

    def _merged(self, merge: Merge) -> Callable[[], None]:
        segment: Segment | None = None
        try:
            segment = merge.run()
        except Exception:  # for instance not enough memory
            _log.exception("cannot merge %d segments of the index", len(merge.numbers))

        def adopt() -> None:
            self._merging = False
            if segment is None:
                self._segments.exclude_from_merging(merge)
                return
            self._segments.adopt(merge, segment)
            self._changed = True

        return adopt

    def _warn_once(self, message: str) -> None:
        """Log a message, but only once."""
        message = printable(message)
        if message not in self._warned:
            self._warned.add(message)
            _log.warning("%s", message)
