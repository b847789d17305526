"""Abort a running evaluation, unless it ends so soon that finishing it costs less than evaluating its tokens again.

After a keystroke, the server cancels the request for the text before that key. Its prompt is nearly the prompt of the
next request. If each keystroke aborted the evaluation of the prompt, a user who types fast would never get an answer on
a machine that needs longer for a batch than the user needs for a key.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FINISH_SECONDS = 0.045  # an evaluation that is expected to end within this time is not aborted


class AbortFlag:
    """The flag that llama.cpp checks before each operation of its graph. `clock` returns a time in seconds.

    Any thread can call `set`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        # llama.cpp calls the abort callback hundreds of times per evaluation. Each time, a Python function would wait
        # for the thread that holds the GIL. C's `atoi` needs no GIL, and returns the number in the flag: 0 or 1.
        self._flag = ctypes.create_string_buffer(b"0")
        self._clock = clock
        self._lock = threading.Lock()
        self._ends_at: float | None = None  # when the running evaluation is expected to end, if this is known
        self._timer: threading.Timer | None = None
        self.wanted = False

    @property
    def address(self) -> ctypes.c_void_p:
        """The address of the flag, for `atoi`."""
        return ctypes.cast(self._flag, ctypes.c_void_p)

    @contextmanager
    def evaluating(self, seconds: float | None) -> Iterator[None]:
        """Mark an evaluation as running. `seconds` is the time that it is expected to take, or None."""
        with self._lock:
            self._ends_at = None if seconds is None else self._clock() + seconds
        try:
            yield
        finally:
            with self._lock:
                self._ends_at = None

    def set(self, wanted: bool) -> None:
        """Abort the running evaluation and every later one, or allow evaluations again.

        If the running evaluation is expected to end within `FINISH_SECONDS`, it is aborted only after this time.
        """
        with self._lock:
            self.wanted = wanted
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            left = None if self._ends_at is None else self._ends_at - self._clock()
            if wanted and left is not None and left <= FINISH_SECONDS:
                self._timer = threading.Timer(FINISH_SECONDS, self._late)
                self._timer.daemon = True
                self._timer.start()
            else:
                self._flag.value = b"1" if wanted else b"0"

    def _late(self) -> None:
        with self._lock:
            if self.wanted:
                self._flag.value = b"1"
