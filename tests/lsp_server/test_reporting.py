"""What the server reports to the user: the status, notices, and the log."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lsp_server import log as logs
from lsp_server import parent
from lsp_server.notices import Notices, Severity
from lsp_server.status import Facts, status_of

READY = Facts(engine="ready", indexed=1.0, model="m")


@pytest.mark.parametrize(
    ("facts", "state", "percent"),
    [
        (Facts(), "starting", None),
        (replace(READY, engine="starting", generating=1), "starting", None),
        (replace(READY, engine="failed"), "error", None),
        (READY, "ready", None),
        (replace(READY, indexed=0.427), "indexing", 42),
        (replace(READY, indexed=None), "ready", None),
        (replace(READY, indexed=0.5, generating=2), "generating", None),
        (replace(READY, problem="no model", generating=1), "error", None),
        (replace(READY, problem="no model", enabled=False), "off", None),
    ],
)
def test_status(facts: Facts, state: str, percent: int | None) -> None:
    status = status_of(facts)
    assert (status.state, status.percent) == (state, percent)
    assert status.message
    assert status.to_json()["model"] == facts.model


def test_a_problem_is_shown_once_and_again_after_it_was_over() -> None:
    shown: list[tuple[Severity, str]] = []
    notices = Notices(lambda severity, text: shown.append((severity, text)))
    notices.tell("model", "no model")
    notices.tell("model", "no model")
    notices.tell("settings", "wrong", "warning")
    assert shown == [("error", "no model"), ("warning", "wrong")]
    notices.tell("model", "a corrupt model")
    notices.settle("model")
    notices.tell("model", "a corrupt model")
    assert [text for _, text in shown[2:]] == ["a corrupt model"] * 2


async def test_log_lines_reach_the_client_from_any_thread_without_what_exceptions_say() -> None:
    lines: list[str] = []
    handler = logs.ClientHandler(lambda level, line: lines.append(line))
    handler.attach()
    logs.set_level("info")
    log = logging.getLogger("policy.anything")

    def work() -> None:
        try:
            raise ValueError("def secret_code(): pass")
        except ValueError:
            log.exception("it failed")

    try:
        await asyncio.to_thread(work)
        await asyncio.sleep(0)
    finally:
        handler.detach()
    assert len(lines) == 1
    assert "it failed\nValueError\n" in lines[0]
    assert "test_reporting.py" in lines[0]
    assert "secret_code" not in lines[0]


async def test_the_end_of_a_process_is_noticed() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=subprocess.PIPE)
    gone = asyncio.Event()
    watching = asyncio.create_task(parent.watch(process.pid, gone.set, interval=0.01))
    await asyncio.sleep(0.1)
    assert not gone.is_set()
    process.kill()
    await asyncio.wait_for(gone.wait(), 10)
    await watching
    await process.wait()


async def test_a_process_that_cannot_be_seen_is_not_watched() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await process.wait()
    gone = asyncio.Event()
    await parent.watch(process.pid, gone.set, interval=0.01)
    assert not gone.is_set()


def test_old_logs_go_but_for_those_of_servers_that_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "directory", lambda: tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    running = tmp_path / f"server-20200101-000000-{os.getpid()}.log"
    old = [tmp_path / f"server-20200101-0000{second:02}-{ended.pid}.log" for second in range(1, 15)]
    for path in (running, *old):
        path.touch()
    opened = logs.open_file()
    try:
        assert opened is not None
        assert running.exists()
        assert [path.exists() for path in old] == [False] * 5 + [True] * 9
    finally:
        for name in (*logs.OURS, "asyncio"):
            for handler in [each for each in logging.getLogger(name).handlers if isinstance(each, logging.FileHandler)]:
                logging.getLogger(name).removeHandler(handler)
                handler.close()
