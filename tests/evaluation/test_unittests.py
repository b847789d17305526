"""Unit tests are run on completions that pass, fail, hang, fork, allocate memory, or use the network."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from policy.evaluation import unittests
from policy.evaluation.unittests import Limits

pytestmark = pytest.mark.skipif(not unittests.can_isolate(Limits()), reason="needs Linux namespaces")

CHECK = ("python", "-c", "import area; assert area.of(2, 3) == 6")
LIMITS = Limits(seconds=3, megabytes=1024, processes=20)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "area.py").write_text("def of(w, h): raise NotImplementedError\n")
    return folder


def outcome(repository: Path, text: str, limits: Limits = LIMITS) -> str:
    before = {path: path.read_text() for path in repository.iterdir()}
    found = unittests.run(repository, "area.py", text, CHECK, limits)
    assert {path: path.read_text() for path in repository.iterdir()} == before  # tests run in a copy of the folder
    return found


def test_a_completion_that_passes(repository: Path) -> None:
    assert outcome(repository, "def of(w, h): return w * h\n") == "pass"


def test_a_failing_completion_reports_its_error(repository: Path) -> None:
    assert outcome(repository, "def of(w, h): return w + h\n") == "exit status 1: AssertionError"
    assert "SyntaxError" in outcome(repository, "def of(w, h: return\n")


def test_hanging_tests_are_stopped(repository: Path) -> None:
    assert outcome(repository, "while True: pass\n", Limits(seconds=1)) == "not finished after 1 s"


def test_processes_that_tests_start_end_with_them(repository: Path, tmp_path: Path) -> None:
    # This completion starts a daemon in a separate session. The test finds the daemon by its unusual argument.
    left = "import os, subprocess, sys\nsubprocess.Popen(['sleep', '3217'], start_new_session=True)\n"
    assert outcome(repository, left + "def of(w, h): return w * h\n") == "pass"
    assert outcome(repository, left + "while True: pass\n", Limits(seconds=1)) == "not finished after 1 s"
    end = time.monotonic() + 5
    while leftovers := [p for p in psutil.process_iter(["cmdline"]) if "3217" in (p.info["cmdline"] or [])]:
        assert time.monotonic() < end, leftovers
        time.sleep(0.05)


def test_tests_that_keep_forking_are_stopped(repository: Path) -> None:
    # This completion starts sixty processes that wait, so slowly that the check of the limit finds more than 20.
    bomb = (
        "import os, time\nfor _ in range(60):\n    if os.fork() == 0:\n        time.sleep(60)\n    time.sleep(0.01)\n"
    )
    found = outcome(repository, bomb + "time.sleep(60)\n")
    assert found == "more than 20 processes"


@pytest.mark.parametrize("isolated", [True, False])
def test_other_processes_of_the_user_do_not_count(repository: Path, isolated: bool) -> None:
    # The tests must keep the user's RLIMIT_NPROC. This limit of the kernel counts all threads of the user, so with a
    # lower value, no test could start a process on a desktop.
    say = "import resource; print(*resource.getrlimit(resource.RLIMIT_NPROC)); raise SystemExit(1)"
    found = unittests.run(repository, "area.py", "", ("python", "-c", say), replace(LIMITS, isolated=isolated))
    assert found == "exit status 1: {} {}".format(*resource.getrlimit(resource.RLIMIT_NPROC))


def test_memory_is_limited(repository: Path) -> None:
    assert "MemoryError" in outcome(repository, "x = bytearray(2 << 30)\ndef of(w, h): return w * h\n")


def test_there_is_no_network(repository: Path) -> None:
    call = "import socket\nsocket.create_connection(('127.0.0.1', 9), 1)\n"
    found = outcome(repository, call)
    assert "OSError" in found
    assert "Network is unreachable" in found


def test_a_path_outside_the_copy_is_not_written(repository: Path) -> None:
    found = unittests.run(repository, "../elsewhere.py", "", CHECK, LIMITS)
    assert found == "not run: ../elsewhere.py leads out of the repository"


def test_a_missing_command(repository: Path) -> None:
    found = unittests.run(repository, "area.py", "", ("no-such-command",), LIMITS)
    assert found.startswith("not run: unshare: failed to execute no-such-command")


def test_isolation_is_checked_under_the_limits_of_the_tests(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # This command replaces `unshare`. It fails if the limit of processor time is 8 s, as for tests of 7 s.
    needs = "import resource, sys; sys.exit(resource.getrlimit(resource.RLIMIT_CPU)[0] == 8)"
    monkeypatch.setattr(unittests, "_NAMESPACES", (sys.executable, "-c", needs))
    assert unittests.can_isolate(Limits(seconds=3))
    assert not unittests.can_isolate(Limits(seconds=7))


def test_without_isolation_tests_run_only_if_allowed(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unittests, "can_isolate", lambda limits: False)
    text = "def of(w, h): return w * h\n"
    assert outcome(repository, text).startswith("not run: this machine cannot isolate")
    assert outcome(repository, text, Limits(seconds=3, isolated=False)) == "pass"
