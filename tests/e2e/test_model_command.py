"""`repoformer-lsp model pull` and `model import` as a user runs them, with a stand-in for the hub on 127.0.0.1."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from policy.models import catalog
from policy.models.gguf import read_header
from policy.prompting.prompt import LAYOUTS
from tests.e2e.driving import SERVER
from tests.standin_hub import Hub, hub

pytestmark = pytest.mark.skipif(not find_spec("huggingface_hub"), reason="needs the `hub` extra")
Command = Callable[..., "subprocess.Popen[str]"]
Pull = Callable[..., "subprocess.CompletedProcess[str]"]
NAME = "someone/tiny-GGUF"


@pytest.fixture
def served() -> Iterator[Hub]:
    with hub() as state:
        yield state


@pytest.fixture
def start(served: Hub, home: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> Command:
    """Return a function that starts `repoformer-lsp model` with arguments and with the stand-in as the hub."""
    # In the background of a shell, the test process ignores SIGINT, and its child processes would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def start(*words: object, **env: str) -> subprocess.Popen[str]:
        hub_home = {"HF_ENDPOINT": served.address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        path = {name: os.environ[name] for name in ("PYTHONPATH", "PATH", "HOME") if name in os.environ}
        return subprocess.Popen(
            [str(SERVER), "model", *map(str, words)], env={**path, **home, **hub_home, **env}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    return start


@pytest.fixture
def run(start: Command) -> Pull:
    """Return a function that runs `repoformer-lsp model` to its end, and fails unless the exit status is `status`."""

    def run(*words: str | Path, status: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        with start(*words, **env) as process:
            out, err = process.communicate(timeout=120)
        assert process.returncode == status, err
        assert "Traceback" not in err
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    return run


@pytest.fixture
def content(model: Path, served: Hub) -> bytes:
    """The bytes of a real model, which the stand-in serves as `tiny.gguf`."""
    data = model.read_bytes()
    served.repositories[NAME] = {"tiny.gguf": data, "README.md": b"# tiny"}
    return data


def models_in(home: dict[str, str]) -> Path:
    return Path(home["XDG_CACHE_HOME"]) / "repoformer-lsp" / "models"


def test_without_a_name_the_catalog_is_listed_and_nothing_fetched(run: Pull, served: Hub) -> None:
    text = run("pull").stdout
    for entry in catalog.CATALOG:
        assert re.search(rf"^{re.escape(entry.name)} .*{re.escape(entry.license)}$", text, re.MULTILINE)
        assert entry.layout in LAYOUTS
    assert served.ranges == []


def test_a_gguf_by_its_id(run: Pull, content: bytes, home: dict[str, str], served: Hub) -> None:
    done = run("pull", NAME)
    path = Path(done.stdout.strip())
    assert path == models_in(home) / "someone--tiny-GGUF" / "tiny.gguf"
    assert path.read_bytes() == content
    assert "license: mit" in done.stderr
    assert str(path) in run("list").stdout
    run("pull", f"{NAME}:tiny.gguf")
    assert len(served.ranges) == 1, "an installed model is downloaded again"


def test_an_interrupted_download_is_resumed(
    run: Pull, start: Command, content: bytes, home: dict[str, str], served: Hub
) -> None:
    served.stall_at = 20 << 20
    with start("pull", NAME) as process:
        assert served.stalled.wait(60)
        folder = models_in(home) / "someone--tiny-GGUF"
        while sum(part.stat().st_size for part in folder.glob("*.part")) < 10 << 20:
            assert process.poll() is None
        while process.poll() is None:  # one signal is not enough: Python ignores SIGINT while it runs a finalizer
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)
        assert process.returncode == 130
    assert not list(folder.glob("*.gguf"))
    kept = next(folder.glob("*.part")).stat().st_size
    assert kept >= 10 << 20
    served.resume.set()
    served.stall_at = 0
    path = Path(run("pull", NAME).stdout.strip())
    assert served.ranges == ["", f"bytes={kept}-"]
    assert path.read_bytes() == content
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize(
    ("fault", "name", "message"),
    [
        ("", "someone/absent", "There is no model someone/absent at http://127"),
        ("", "no such thing", "neither a name in the catalog nor a Hugging Face id"),
        ("", f"{NAME}:other.gguf", r"does not contain other.gguf. Its GGUF files:\n  someone/tiny-GGUF:tiny.gguf"),
        ("gated", NAME, "is gated. Accept its terms"),
        ("corrupt", NAME, "The hash of .* lists .* The download was deleted"),
        ("full", NAME, "The disk of .* is full: the download needs 1,000,000.00 GB"),
        ("several", NAME, r"contains several models. Choose one:\n  someone/tiny-GGUF:more.gguf"),
        ("nothing", NAME, "contains no GGUF and no checkpoint"),
    ],
)
def test_what_goes_wrong_is_said(
    run: Pull, content: bytes, served: Hub, home: dict[str, str], fault: str, name: str, message: str
) -> None:
    served.corrupt = fault == "corrupt"
    served.gated = {NAME} if fault == "gated" else set()
    served.claimed_size = 10**15 if fault == "full" else 0
    if fault == "several":
        served.repositories[NAME]["more.gguf"] = b"GGUF"
    if fault == "nothing":
        served.repositories[NAME] = {"README.md": b"# nothing"}
    assert re.search(message, run("pull", name, status=1).stderr)
    assert not list(models_in(home).rglob("*.gguf"))
    assert not list(models_in(home).rglob("*.part")) or fault == "gated"


def test_offline(run: Pull) -> None:
    assert "HF_HUB_OFFLINE is set" in run("pull", NAME, status=1, HF_HUB_OFFLINE="1").stderr
    nowhere = run("pull", NAME, status=1, HF_ENDPOINT="http://127.0.0.1:9").stderr
    assert "http://127.0.0.1:9 cannot be reached" in nowhere


@pytest.mark.skipif(not find_spec("torch"), reason="needs the `train` extra")
def test_a_repoformer_checkpoint_is_pulled_and_converted(
    run: Pull, served: Hub, tmp_path: Path, home: dict[str, str]
) -> None:
    from tests.checkpoints import bigcode, save

    folder = tmp_path / "made"
    save(bigcode, folder, digits=True)
    served.repositories["xiaowu0162/repoformer-1b"] = {file.name: file.read_bytes() for file in folder.iterdir()}
    path = Path(run("pull", "repoformer-1b", "--type", "Q8_0").stdout.strip())
    assert path == models_in(home) / "repoformer-1b-Q8_0.gguf"
    assert [file.name for file in models_in(home).glob("*.gguf*")] == [path.name], "an incomplete file is left"
    assert f"{path}  " in run("list").stdout
    assert read_header(path).text("repoformer.layout") == "repoformer"


def test_a_folder_that_cannot_be_imported(run: Pull, tmp_path: Path) -> None:
    assert "is not a folder" in run("import", tmp_path / "gone", status=1).stderr
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt_bigcode"}))
    assert "has no tokenizer.json" in run("import", tmp_path, status=1).stderr
    (tmp_path / "tokenizer.json").write_text("{")
    assert "is damaged" in run("import", tmp_path, status=1).stderr
