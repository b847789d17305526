"""After a crash of a worker, the next one starts with safer settings, which are stored for a week.

Not every exit is a crash.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from policy.engine.process import is_crash
from policy.engine.settings import EngineSettings
from policy.engine.supervisor import REMEMBERED, Supervisor

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


@posix
def test_only_signals_of_crashing_code_are_crashes() -> None:
    crashes = {signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE}
    assert all(is_crash(-number) for number in crashes)
    others = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU)
    assert not any(is_crash(code) for code in (0, 1, 2, 137, 0xC000013A, *(-number for number in others)))


def test_only_exceptions_of_crashing_code_are_crashes_on_windows() -> None:
    """A lack of memory, a missing DLL, and the end of the user's session are not caused by the settings."""
    assert all(map(is_crash, (0xC0000005, 0xC000001D, 0xC0000094, 0xC0000374, 0xC0000409, 0x80000003, 0xE06D7363)))
    assert not any(map(is_crash, (0xC0000017, 0xC000012D, 0xC0000135, 0xC0000142, 0xC000013A, 0x40010004)))


# This module ends the first worker while it loads the model, with the signal in an environment variable. Python imports
# the module at the start of every process that has its folder in PYTHONPATH.
DYING = """
import os, sys
if any("policy.engine.worker" in argument for argument in sys.orig_argv):
    from policy.engine.worker.native import load as open_library
    native = open_library()
    load = native.llama_model_load_from_file
    def dying_load(path, params):
        try:
            os.close(os.open(os.environ["DIED"], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return load(path, params)
        os.kill(os.getpid(), int(os.environ["BY"]))
    native.llama_model_load_from_file = dying_load
"""


@posix
@pytest.mark.parametrize(
    ("by", "steps_down"), [(signal.SIGKILL, False), (signal.SIGTERM, False), (signal.SIGILL, True)]
)
async def test_a_kill_while_loading_changes_nothing_and_a_crash_does(
    model: Path, tmp_path: Path, by: int, steps_down: bool
) -> None:
    (tmp_path / "sitecustomize.py").write_text(DYING)
    memory, notices = tmp_path / "engine.json", list[str]()
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    environment = {"PYTHONPATH": path, "DIED": str(tmp_path / "died"), "BY": str(int(by))}
    settings = EngineSettings(context_size=1024, threads=2)
    supervisor = Supervisor(model, settings, memory=memory, environment=environment, notice=notices.append)
    await supervisor.engine()
    await supervisor.close()
    assert memory.exists() == any("crashed" in notice for notice in notices) == steps_down
    if steps_down:  # the settings are stored for a week
        again = Supervisor(model, settings, memory=memory)
        assert again._remembered_level() == 1
        rows = json.loads(memory.read_text())
        [key] = rows
        memory.write_text(json.dumps({key: [1, time.time() - REMEMBERED - 1]}))
        assert again._remembered_level() == 0


@pytest.mark.parametrize(
    "kept", ["", "[]", "{", "5", '{"x": 1}', "null", '{"KEY": 2}', '{"KEY": [-1, 0]}', '{"KEY": [1, "x"]}']
)
def test_a_memory_that_makes_no_sense_says_nothing(tmp_path: Path, kept: str) -> None:
    memory = tmp_path / "engine.json"
    supervisor = Supervisor(tmp_path / "m.gguf", EngineSettings(), memory=memory)
    memory.write_text(kept.replace("KEY", supervisor._key()))
    assert supervisor._remembered_level() == 0
