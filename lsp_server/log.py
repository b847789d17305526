"""Write log lines to a file in the user's log directory and to the editor's output window.

The log contains no source code. The lines of this program contain only file names and figures. If an exception is
logged, its type and the locations in its traceback are written, but not its message, which may quote source code. The
logger of pygls is disabled, because it logs whole messages of the protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import logging.handlers
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import platformdirs
import psutil

OURS = ("lsp_server", "policy", "indexer")
_KEPT_FILES = 10
_MAX_BYTES = 2_000_000  # the size at which a file is rotated
_ATTACHED = (*OURS, "asyncio")


def directory() -> Path:
    """Return the user's log directory, which may not exist."""
    return Path(platformdirs.user_log_dir("repoformer-lsp", appauthor=False))


def open_file() -> Path | None:
    """Start the log file of this process, and delete the oldest log files. Return the path.

    Return None if the file cannot be written.
    """
    silence_pygls()
    path = directory() / f"server-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _tidy(path.parent)
        # Each process has its own file, because two processes cannot safely rotate the same file.
        handler = logging.handlers.RotatingFileHandler(
            path, maxBytes=_MAX_BYTES, backupCount=1, encoding="utf-8", errors="backslashreplace"
        )
    except OSError:
        return None
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    for name in _ATTACHED:
        logging.getLogger(name).addHandler(handler)
    set_level("info")
    return path


def _tidy(folder: Path) -> None:
    """Delete the oldest log files, except those of running servers. A file that cannot be deleted is kept."""
    for old in sorted(folder.glob("server-*.log*"))[: -_KEPT_FILES + 1]:
        process = old.name.split(".")[0].rpartition("-")[2]
        if not (process.isdecimal() and psutil.pid_exists(int(process))):
            with contextlib.suppress(OSError):
                old.unlink()


def set_level(level: str) -> None:
    """Set the least severe level to log: "error", "warning", "info" or "debug"."""
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())


def silence_pygls() -> None:
    """Disable the logger of pygls, because it logs whole messages of the protocol, which may contain source code."""
    logger = logging.getLogger("pygls")
    logger.setLevel(logging.CRITICAL + 1)
    logger.propagate = False


class ClientHandler(logging.Handler):
    """Forwards log lines to a client.

    Any thread may log. `send` gets the level and the line, and is called on the event loop that made this object.
    """

    def __init__(self, send: Callable[[int, str], None]) -> None:
        super().__init__()
        self._send = send
        self._loop = asyncio.get_running_loop()
        self.setFormatter(_Formatter("%(name)s: %(message)s"))

    def attach(self) -> None:
        """Start to forward log lines."""
        for name in OURS:
            logging.getLogger(name).addHandler(self)

    def detach(self) -> None:
        """Stop forwarding log lines."""
        for name in OURS:
            logging.getLogger(name).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Schedule `send` for a log record on the event loop."""
        line = self.format(record)
        with contextlib.suppress(RuntimeError):  # raised if the loop is closed
            self._loop.call_soon_threadsafe(self._send, record.levelno, line)


class _Formatter(logging.Formatter):
    def formatException(self, ei: object) -> str:  # noqa: N802  # logging's own name
        error = ei[1] if isinstance(ei, tuple) else None
        if not isinstance(error, BaseException):
            return ""
        frames = traceback.extract_tb(error.__traceback__)
        places = [f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
        return "\n".join([type(error).__name__, *places])
