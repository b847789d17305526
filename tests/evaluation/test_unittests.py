"""Completions that pass, fail, hang, fork, allocate, or call home: each is a result, and none outlives its run."""

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
    assert {path: path.read_text() for path in repository.iterdir()} == before  # only the copy is touched
    return found


def test_a_completion_that_passes(repository: Path) -> None:
    assert outcome(repository, "def of(w, h): return w * h\n") == "pass"


def test_a_completion_that_fails_says_how(repository: Path) -> None:
    assert outcome(repository, "def of(w, h): return w + h\n") == "exit status 1: AssertionError"
    assert "SyntaxError" in outcome(repository, "def of(w, h: return\n")


def test_tests_that_hang_are_ended(repository: Path) -> None:
    assert outcome(repository, "while True: pass\n", Limits(seconds=1)) == "no end in 1 s"


def test_what_tests_start_ends_with_them(repository: Path, tmp_path: Path) -> None:
    # A daemon: forked twice, in a session of its own, with a name that can be found.
    left = "import os, subprocess, sys\nsubprocess.Popen(['sleep', '3217'], start_new_session=True)\n"
    assert outcome(repository, left + "def of(w, h): return w * h\n") == "pass"
    assert outcome(repository, left + "while True: pass\n", Limits(seconds=1)) == "no end in 1 s"
    end = time.monotonic() + 5
    while leftovers := [p for p in psutil.process_iter(["cmdline"]) if "3217" in (p.info["cmdline"] or [])]:
        assert time.monotonic() < end, leftovers
        time.sleep(0.05)


def test_tests_that_fork_without_end_are_ended(repository: Path) -> None:
    # Slow enough that a test can start it: sixty processes that wait, one after the other.
    bomb = (
        "import os, time\nfor _ in range(60):\n    if os.fork() == 0:\n        time.sleep(60)\n    time.sleep(0.01)\n"
    )
    found = outcome(repository, bomb + "time.sleep(60)\n")
    assert found == "more than 20 processes"


@pytest.mark.parametrize("isolated", [True, False])
def test_what_else_the_user_runs_does_not_count(repository: Path, isolated: bool) -> None:
    # The kernel's limit on processes is one on all of a user's threads: set, it lets no test begin on a desktop.
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


def test_a_path_that_leads_out_is_not_written(repository: Path) -> None:
    found = unittests.run(repository, "../elsewhere.py", "", CHECK, LIMITS)
    assert found == "not run: ../elsewhere.py leads out of the repository"


def test_a_command_that_is_not_there(repository: Path) -> None:
    found = unittests.run(repository, "area.py", "", ("no-such-command",), LIMITS)
    assert found.startswith("not run: unshare: failed to execute no-such-command")


def test_isolation_is_tried_under_the_limits_of_the_tests(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What starts namespaces here cannot do so under the limits.
    needs = "import resource, sys; sys.exit(resource.getrlimit(resource.RLIMIT_CPU)[0] == 8)"
    monkeypatch.setattr(unittests, "_NAMESPACES", (sys.executable, "-c", needs))
    assert unittests.can_isolate(Limits(seconds=3))
    assert not unittests.can_isolate(Limits(seconds=7))


def test_without_isolation_nothing_runs_unless_allowed(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unittests, "can_isolate", lambda limits: False)
    text = "def of(w, h): return w * h\n"
    assert outcome(repository, text).startswith("not run: this machine cannot isolate")
    assert outcome(repository, text, Limits(seconds=3, isolated=False)) == "pass"
