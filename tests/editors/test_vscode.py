"""VS Code, as code-server in a headless Chromium: the packed extension, installed as a person installs it."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.editors.conftest import REPOSITORY, install
from tests.editors.wire import Stopwatch, Wire
from tests.editors.workspace import AREA, HARD, MULTIPLY

EXTENSION = REPOSITORY / "editors" / "vscode"
SECONDS = 90
CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
USER_SETTINGS = {
    "editor.fontSize": 15,
    "editor.minimap.enabled": False,
    "editor.quickSuggestions": {"other": "off", "comments": "off", "strings": "off"},
    "editor.autoClosingBrackets": "never",
    "editor.wordBasedSuggestions": "off",
    "workbench.startupEditor": "none",
    "workbench.colorTheme": "Default Dark Modern",
    "workbench.secondarySideBar.defaultVisibility": "hidden",
    "chat.disableAIFeatures": True,
    "files.autoSave": "off",
    "window.menuBarVisibility": "hidden",
    "git.enabled": False,
    "telemetry.telemetryLevel": "off",
}


@pytest.fixture(scope="session")
def program() -> Path:
    return install("code-server") / "code-server"


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The .vsix, built from the sources in a folder of its own."""
    source = tmp_path_factory.mktemp("vscode") / "extension"
    shutil.copytree(EXTENSION, source, ignore=shutil.ignore_patterns("node_modules", "dist", "*.vsix"))
    for command in (["npm", "ci", "--no-audit", "--no-fund"], ["npm", "run", "package"]):
        done = subprocess.run(
            command, cwd=source, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return source / "repoformer-lsp.vsix"


class Code:
    """A browser window with VS Code in it, and what its person does and sees."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def open(self, name: str) -> None:
        self.page.keyboard.press("Control+P")
        self.page.wait_for_selector(".quick-input-widget input")
        self.page.keyboard.type(name)
        self.page.wait_for_selector(f".quick-input-list .monaco-list-row:has-text('{name}')", timeout=30_000)
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector(f".tab.active[data-resource-name='{name}']", timeout=30_000)
        self.page.wait_for_timeout(300)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def type(self, text: str) -> None:
        self.page.keyboard.type(text)

    def command(self, title: str) -> None:
        self.page.keyboard.press("F1")
        self.page.wait_for_selector(".quick-input-widget input")
        self.page.keyboard.type(title)
        self.page.wait_for_selector(f".quick-input-list .monaco-list-row:has-text('{title}')", timeout=30_000)
        self.page.keyboard.press("Enter")

    @property
    def ghost(self) -> str:
        """The ghost text on screen, run together: colours cut it into pieces. Empty where there is none."""
        parts = self.page.locator(".editor-instance [class*=ghost-text]:visible").all_inner_texts()
        return "".join(part.replace("\xa0", " ").replace("\u200b", "") for part in parts)

    @property
    def status(self) -> str:
        return self.page.locator("[id='repoformer-lsp.repoformer-lsp.repoformer']").get_attribute("aria-label") or ""

    def until(self, holds: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
        end = time.monotonic() + seconds
        while not (value := holds()):
            assert time.monotonic() < end, f"{what}; ghost {self.ghost!r}; {self.status}"
            self.page.wait_for_timeout(50)
        return value

    def wait_ghost(self, holds: str = "") -> str:
        ghost: str = self.until(lambda: (g := self.ghost) and holds in g and g, f"no ghost text with {holds!r}")
        return ghost

    def wait_status(self, text: str) -> None:
        self.until(lambda: text in self.status, f"the status bar never says {text!r}")

    def text(self, file: Path) -> str:
        """The file's text after saving it: what the editor has."""
        before = file.stat().st_mtime_ns
        self.press("Control+S")
        self.until(lambda: file.stat().st_mtime_ns != before, "not saved", 15)
        self.page.wait_for_timeout(200)
        return file.read_bytes().decode()


@contextmanager
def code_server(
    program: Path, package: Path, home: dict[str, str], folder: Path, wire: Wire, extra: dict[str, Any], place: Path
) -> Iterator[Code]:
    """Run code-server on `folder` and a browser on it until the block ends."""
    data, extensions = place / "data", place / "extensions"
    machine = {"repoformer.server.command": [str(wire.script(place / "repoformer-lsp"))]}  # as the scope of it is
    user = {**USER_SETTINGS, "repoformer.model": str(wire.model or "")}
    user |= {name: value for name, value in extra.items() if name not in machine}
    machine |= {name: value for name, value in extra.items() if name in machine}
    for level, settings in (("User", user), ("Machine", machine)):
        (data / level).mkdir(parents=True)
        (data / level / "settings.json").write_text(json.dumps(settings))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base = [str(program), "--user-data-dir", str(data), "--extensions-dir", str(extensions)]
    installed = subprocess.run(
        [*base, "--install-extension", str(package)], env=home, capture_output=True, text=True, check=False
    )
    assert "successfully installed" in installed.stdout, installed.stdout + installed.stderr
    log = (place / "code-server.log").open("w")
    server = subprocess.Popen(
        [*base, "--auth", "none", "--bind-addr", f"127.0.0.1:{port}", str(folder)],
        env={**home, "VSCODE_PROXY_URI": ""},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
            page = browser.new_page(viewport={"width": 1100, "height": 620})
            page.set_default_timeout(60_000)
            end = time.monotonic() + 60
            while True:
                try:
                    page.goto(f"http://127.0.0.1:{port}/?folder={folder}")
                    break
                except Exception:
                    assert time.monotonic() < end, (place / "code-server.log").read_text()
                    time.sleep(0.3)
            page.wait_for_selector(".monaco-workbench")
            try:
                yield Code(page)
            except BaseException:
                page.screenshot(path=place / "failed.png")
                raise
            finally:
                browser.close()
    finally:
        server.terminate()
        server.wait(30)
        log.close()


@pytest.fixture
def start(
    program: Path, package: Path, home: dict[str, str], folder: Path, wire: Wire, tmp_path: Path
) -> Callable[..., Any]:
    def start(wire: Wire = wire, **settings: Any) -> Any:
        return code_server(program, package, home, folder, wire, settings, tmp_path)

    return start


def check_same(code: Code, wire: Wire, file: Path) -> str:
    """The buffer and the server's copy are identical; returns the text."""
    text = code.text(file).replace("\r\n", "\n")
    code.until(lambda: wire.text(file) == text, f"the editor has {text!r}, the server {wire.text(file)!r}", 10)
    return text


def test_the_settings_page_is_the_servers() -> None:
    assert subprocess.run([sys.executable, EXTENSION / "settings.py", "--check"], check=False).returncode == 0


def test_type_accept_word_line_all_undo(
    start: Callable[..., Any], wire: Wire, folder: Path, keep: Any, tmp_path: Path
) -> None:
    file = folder / "arithmetic.py"
    before = file.read_text() + MULTIPLY
    with start() as code:
        watch = Stopwatch("VS Code")
        code.open("arithmetic.py")
        code.press("Control+End")
        code.type(MULTIPLY)
        code.wait_ghost("return a * b")
        watch.lap("opening a file")
        code.press("Tab")
        assert check_same(code, wire, file) == before + "\n    return a * b"
        code.press("Control+Z")
        assert check_same(code, wire, file) == before, "one undo takes all of it back"
        code.press("Control+End", "Space", "Backspace")
        code.wait_ghost("return a * b")
        code.press("Control+Alt+ArrowRight")
        code.until(lambda: len(wire.text(file)) > len(before), "a line is not accepted", 10)
        accepted = check_same(code, wire, file)
        assert accepted.startswith(before) and len(accepted) > len(before), "a line"
        code.press("Control+Z")
        assert check_same(code, wire, file) == before

        code.open("beds.py")
        file = folder / "beds.py"
        code.press("Control+End")
        code.type(AREA[:-1])
        watch.start()
        code.type(AREA[-1])
        whole = code.wait_ghost("width")
        watch.lap("a key")
        keep_picture(code, keep, tmp_path, "vscode.png")
        code.type(whole[0])
        code.until(lambda: code.ghost == whole[1:], "typing through", 5)
        code.press("Control+ArrowRight")
        code.until(lambda: code.ghost == whole[len("width") :], "the rest after a word", 10)
        word = check_same(code, wire, file)
        assert word.endswith(AREA + "width"), "a word"
        code.press("Tab")
        code.press("Escape")
        assert check_same(code, wire, file).startswith(word)


def keep_picture(code: Code, keep: Any, tmp_path: Path, name: str) -> None:
    code.page.wait_for_timeout(1000)  # animations, and colours that come late
    code.page.screenshot(path=tmp_path / name)
    keep(tmp_path / name, name)


def test_middle_of_a_line_hard_characters_and_line_ends(start: Callable[..., Any], wire: Wire, folder: Path) -> None:
    lines = HARD.split("\n")
    hard = folder / "hard.py"
    hard.write_bytes("\r\n".join([*lines[:-1], "\t"]).encode())
    names = folder / "names.py"
    with start(**{"editor.insertSpaces": False, "editor.detectIndentation": False}) as code:
        code.open("names.py")
        code.wait_status("ready")
        code.press("Control+G")
        code.type("2:11")
        code.press("Enter", "Space", "Backspace")
        whole = code.wait_ghost()
        code.press("Tab")
        assert check_same(code, wire, names).splitlines()[1:] == f"print(len({whole}))".split("\n")

        code.open("hard.py")
        code.press("Control+End")
        code.page.keyboard.insert_text(lines[-1].lstrip("\t")[:-1])
        code.press("Space")
        code.wait_ghost("4")
        code.press("Tab")
        assert check_same(code, wire, hard).startswith(HARD + "4")
        assert b"\r\n" in hard.read_bytes()
        assert wire.encoding() == "utf-16"


def test_dismiss_cycle_trigger(start: Callable[..., Any], wire: Wire) -> None:
    with start() as code:
        code.open("beds.py")
        code.press("Control+End")
        code.type(AREA)
        whole = code.wait_ghost("width")
        code.press("Escape")
        code.until(lambda: not code.ghost, "not dismissed", 5)
        code.press("Alt+Backslash")
        assert code.wait_ghost("width") == whole
        for _ in wire.answers()[-1]:
            code.press("Alt+BracketRight")
        code.until(lambda: code.ghost == whole, "a whole round of cycling does not come back", 20)


def test_why_shows_a_chunk_and_jumps_to_it(start: Callable[..., Any], keep: Any, tmp_path: Path) -> None:
    with start(**{"repoformer.policy": "always"}) as code:
        code.open("beds.py")
        code.wait_status("ready")
        code.press("Control+End")
        code.type(AREA)
        code.wait_ghost()
        code.command("Repoformer: Why This Completion")
        code.page.wait_for_selector(".view-line:has-text('files were read')")
        keep_picture(code, keep, tmp_path, "vscode-why.png")
        place = code.page.locator(".detected-link:has-text('shapes.py')").last.bounding_box()
        assert place is not None
        code.page.keyboard.down("Control")
        code.page.mouse.click(place["x"] + 20, place["y"] + place["height"] / 2)
        code.page.keyboard.up("Control")
        code.page.wait_for_selector(".tab.active[data-resource-name='shapes.py']")


def test_pausing_and_the_menu(start: Callable[..., Any], wire: Wire, keep: Any, tmp_path: Path) -> None:
    with start() as code:
        code.open("beds.py")
        code.wait_status("ready")
        code.page.click("[id='repoformer-lsp.repoformer-lsp.repoformer']")
        code.page.wait_for_selector(".quick-input-list .monaco-list-row:has-text('Pause for python')")
        keep_picture(code, keep, tmp_path, "vscode-menu.png")
        code.press("Escape")
        for command, said in (
            ("Repoformer: Pause for This Language", "off here (python)"),
            ("Repoformer: Resume", "ready"),
            ("Repoformer: Pause for This Workspace", "paused"),
            ("Repoformer: Resume", "ready"),
        ):
            code.command(command)
            code.wait_status(said)
        assert wire.received("repoformer/status")[-1]["state"] == "ready", "the server follows"


def test_server_killed(start: Callable[..., Any], wire: Wire, folder: Path) -> None:
    with start() as code:
        code.open("beds.py")
        code.wait_status("ready")
        wire.kill()
        code.page.wait_for_selector(".notification-toast:has-text('ended unexpectedly')")
        code.press("Control+End")
        code.type("x = 1")
        assert code.text(folder / "beds.py").endswith("x = 1")
        code.wait_status("ready")
        wire.kill()
        code.until(lambda: len(wire.sent("initialize")) == 3, "not started again")
        code.wait_status("ready")
        assert code.page.locator(".notification-toast:has-text('ended unexpectedly')").count() <= 1


def test_no_model(start: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    with start(wire=Wire(tmp_path / "none.jsonl", None)) as code:
        code.open("beds.py")
        toast = code.page.wait_for_selector(".notification-toast:has-text('model pull')")
        assert toast is not None
        code.wait_status("model pull")
        code.press("Control+End")
        code.type("x = 1")
        assert code.text(folder / "beds.py").endswith("x = 1")
        assert code.page.locator(".notification-toast:has-text('model pull')").count() == 1


def test_no_server_offers_to_install_it(start: Callable[..., Any]) -> None:
    with start(**{"repoformer.server.command": []}) as code:
        code.page.wait_for_selector(".notification-toast:has-text('not on the PATH')")
        code.page.click(".notification-toast a:has-text('Install')")
        asked = code.page.wait_for_selector(".monaco-dialog-box:has-text('Install the Repoformer server?')")
        assert asked is not None and re.search("pip installs repoformer-lsp", asked.inner_text())
        code.press("Escape")
