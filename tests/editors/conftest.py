"""Fixtures of the tests in real editors: the workspace that they open, and an empty home directory for each test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from policy.models import locate
from policy.training import wheel
from tests.editors.editors import summary
from tests.editors.wire import SERVER, Wire
from tests.editors.workspace import SECONDS, SETTINGS, lay_out

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
PICTURES = REPOSITORY / "docs" / "editors"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print which editors were tested, which were not, and how many seconds passed until ghost text appeared."""
    if lines := summary():
        terminalreporter.section("editors")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the messages between editor and server to the report of a failed test."""
    report = yield
    wire = getattr(item, "funcargs", {}).get("wire")
    if report.failed and isinstance(wire, Wire):
        report.sections.append(("messages between editor and server", wire.summary()))
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test a long timeout: a test waits several times, and a busy machine makes each wait long."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(3 * SECONDS))


@pytest.fixture(scope="session")
def model() -> Path:
    """The built-in model, even if other models are installed on this machine."""
    return locate.shipped()[0].path


@pytest.fixture(scope="session")
def interim() -> Path:
    """A model without the markers of a Repoformer, which serves as the content of the model that editors download."""
    return wheel.ensure_base()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The workspace that the editors open, with the files of `workspace.FILES`."""
    return lay_out(tmp_path / "garden")


@pytest.fixture
def home(tmp_path: Path, runtime: Path) -> dict[str, str]:
    """The environment variables of a user with an empty home directory."""
    return new_home(tmp_path / "home", runtime)


def new_home(place: Path, runtime: Path) -> dict[str, str]:
    """Create an empty home directory, and return the environment variables of its user.

    The PATH has no `repoformer-lsp`.
    """
    place.mkdir()
    programs = os.environ["PATH"].split(os.pathsep)
    return {
        "PATH": os.pathsep.join(each for each in programs if not Path(each, "repoformer-lsp").exists()),
        "LANG": "C.UTF-8",
        "HOME": str(place),
        "XDG_CONFIG_HOME": str(place / ".config"),
        "XDG_CACHE_HOME": str(place / ".cache"),
        "XDG_STATE_HOME": str(place / ".local" / "state"),
        "XDG_DATA_HOME": str(place / ".local" / "share"),
        "OMP_WAIT_POLICY": "passive",  # threads of llama.cpp that wait must not take processor time from the editor
        "XDG_RUNTIME_DIR": str(runtime),
        **{name: os.environ[name] for name in ("TMPDIR",) if name in os.environ},
    }


@pytest.fixture(scope="session")
def window(model: Path, runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run one more server during all tests, as if the user had another window. It keeps the engine's process alive.

    So the servers of the tests find the model loaded.
    """
    caches = {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")), "XDG_RUNTIME_DIR": str(runtime)}
    with subprocess.Popen(
        [SERVER, "--model", model], env=os.environ | caches, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as server:
        assert server.stdin is not None
        started = {"processId": None, "rootUri": None, "capabilities": {}, "initializationOptions": SETTINGS}
        for message in ({"id": 1, "method": "initialize", "params": started}, {"method": "initialized", "params": {}}):
            body = json.dumps({"jsonrpc": "2.0", **message}).encode()
            server.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        server.stdin.flush()
        yield


@pytest.fixture
def cold(home: dict[str, str]) -> Iterator[None]:
    """Give the test a runtime directory of its own, in which no engine runs, so its server must load the model."""
    with tempfile.TemporaryDirectory(prefix="repoformer-") as folder:
        home["XDG_RUNTIME_DIR"] = folder
        yield


@pytest.fixture
def wire(tmp_path: Path, model: Path, window: None) -> Wire:
    """A server with the built-in model. Its messages are recorded."""
    return Wire(tmp_path / "wire.jsonl", model)


@pytest.fixture
def keep(request: pytest.FixtureRequest) -> Callable[[Callable[[], Path], str], None]:
    """Return a function that takes a screenshot and stores it in the documentation.

    The function does nothing unless the environment variable `REPOFORMER_SCREENSHOTS` is set: the pictures differ with
    each run, and the picture of a terminal needs a browser.
    """

    def keep(take: Callable[[], Path], name: str) -> None:
        if os.environ.get("REPOFORMER_SCREENSHOTS"):
            PICTURES.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(take(), PICTURES / name)

    return keep
