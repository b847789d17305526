"""The extension for VS Code, packed and installed into code-server, which runs VS Code in a headless Chromium."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Browser, BrowserContext, FrameLocator, Page, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from tests.editors.conftest import REPOSITORY, new_home
from tests.editors.editors import EDITORS, Stopwatch, install
from tests.editors.package import WHEEL, Package, package
from tests.editors.wire import Wire
from tests.editors.workspace import AREA, FILES, HARD, MULTIPLY, SECONDS, SETTINGS, UNSURE, fill
from tests.standin_index import hub_path

EXTENSION = REPOSITORY / "editors" / "vscode"
ITEM = "[id='repoformer-lsp.repoformer-lsp.repoformer']"  # the extension's item in the status bar
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


@pytest.fixture(scope="module")
def program() -> Path:
    return install("code-server") / "code-server"


@pytest.fixture(scope="module")
def extensions(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed extensions. It has this extension, which is built and packed from a copy of its sources."""
    place = tmp_path_factory.mktemp("vscode")
    source = place / "extension"
    shutil.copytree(EXTENSION, source, ignore=shutil.ignore_patterns("node_modules", "dist", "*.vsix"))
    folder = place / "extensions"
    modules = EXTENSION / "node_modules"
    # npm writes this file at the end of an installation.
    done_at = modules / ".package-lock.json"
    is_current = done_at.exists() and done_at.stat().st_mtime >= (EXTENSION / "package-lock.json").stat().st_mtime
    if is_current:  # the packages are installed already, for example by `make lint`
        (source / "node_modules").symlink_to(modules)
    data = ["--user-data-dir", str(place / "data"), "--extensions-dir", str(folder)]
    for command in (
        *([] if is_current else [["npm", "ci", "--no-audit", "--no-fund"]]),
        ["npm", "run", "package"],
        [str(program), *data, "--install-extension", "repoformer-lsp.vsix"],
    ):
        done = subprocess.run(
            command, cwd=source, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
        yield browser
        browser.close()


def entry_with(text: str) -> str:
    """Return the CSS selector of the entry with `text` in the open list of VS Code, such as the command palette."""
    return f".quick-input-list .monaco-list-row:has-text('{text}')"


class Code:
    """A browser window with VS Code: performs what a user does, and returns what a user sees."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def search(self, key: str, text: str) -> None:
        """Press the key that opens a list, type `text` into the list, and wait for the entry with that text.

        Repeat this until the entry appears. A page that loads meanwhile can take the focus, which closes the list. And
        VS Code does not repeat its search for files when a folder becomes readable. Rarely, no list shows the entry for
        minutes, although the extension runs. So the window is reloaded after every five attempts.
        """
        input_ = self.page.locator(".quick-input-widget input:focus")
        attempts = itertools.count()

        def found() -> bool:
            if next(attempts) % 5 == 4:
                self.reload()
            self.page.keyboard.press(key)
            try:
                input_.wait_for(timeout=3000)
                self.page.keyboard.type(text)
                if input_.input_value(timeout=3000).endswith(text):
                    self.page.wait_for_selector(entry_with(text), timeout=10_000)
                    return True
            except PlaywrightError:
                pass
            self.page.mouse.click(5, 5)  # on the title bar, to take the focus from everything else
            self.page.keyboard.press("Escape")
            return False

        self.until(found, f"no list shows {text!r}")

    def reload(self) -> None:
        self.page.reload()
        self.page.wait_for_selector(".monaco-workbench")

    def open(self, name: str) -> None:
        self.search("Control+P", name)
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector(f".tab.active[data-resource-name='{name}']")
        self.page.wait_for_selector(".editor-instance .monaco-editor.focused")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def type(self, text: str) -> None:
        self.page.keyboard.type(text)

    def choose(self, title: str) -> None:
        """Choose the entry with `title` in the open list, and wait until the entry is no longer visible."""
        entry = entry_with(title)
        self.page.click(entry)
        self.page.wait_for_selector(entry, state="hidden")

    def command(self, title: str) -> None:
        """Run a command from the command palette."""
        self.search("F1", title)
        self.choose(title)

    def menu(self, entry: str) -> None:
        """Open the menu of the extension's item in the status bar, and choose an entry."""
        self.page.click(ITEM)
        self.choose(entry)

    @property
    def ghost(self) -> str:
        """The visible ghost text, or "". VS Code shows it in several elements, because of the syntax colors."""
        parts = self.page.locator(".editor-instance [class*=ghost-text]:visible").all_inner_texts()
        return "".join(part.replace("\xa0", " ").replace("\u200b", "") for part in parts)

    @property
    def line(self) -> str:
        """The line number of the cursor.

        The status bar has it only while an editor has the focus. A page that was clicked can take the focus back.
        """
        return " ".join(self.page.locator(".editor-instance .active-line-number:visible").all_inner_texts())

    @property
    def status(self) -> str:
        return self.page.locator(ITEM).get_attribute("aria-label") or ""

    @property
    def messages(self) -> list[str]:
        """The visible texts of dialogs, notifications, and the open list."""
        selector = ".monaco-dialog-box, .notification-toast, .quick-input-widget"
        return [" ".join(text.split()) for text in self.page.locator(f":is({selector}):visible").all_inner_texts()]

    def until(self, holds: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + SECONDS
        while not (value := holds()):
            assert time.monotonic() < end, f"{what}; ghost {self.ghost!r}; {self.status}; {self.messages}"
            self.page.wait_for_timeout(50)
        return value

    def wait_ghost(self) -> str:
        ghost: str = self.until(lambda: self.ghost, "no ghost text")
        return ghost

    def wait_status(self, text: str) -> None:
        self.until(lambda: text in self.status, f"the status bar never says {text!r}")

    def shows(self, selector: str, text: str) -> None:
        """Wait until the elements that match a CSS selector show a text, on one line or on several."""

        def shown() -> bool:
            words = " ".join(self.page.locator(selector).all_inner_texts()).replace("\xa0", " ").split()
            return text in " ".join(words)

        self.until(shown, f"{selector} never shows {text!r}")

    @property
    def page_frame(self) -> FrameLocator:
        """The frame of a page that the extension shows, such as *Why this completion*."""
        return self.page.frame_locator("iframe.webview.ready").last.frame_locator("#active-frame")

    def page_shows(self, text: str) -> None:
        """Wait until the extension's page shows a text."""
        self.page_frame.locator(f"body:has-text('{text}')").wait_for()

    def text(self, file: Path) -> str:
        """Save the file in the editor, and return its text on disk."""
        self.press("Control+S")
        self.until(lambda: not self.page.locator(".tab.active.dirty").count(), "not saved")
        return file.read_bytes().decode()


@contextmanager
def code_server(program: Path, extensions: Path, home: dict[str, str], place: Path) -> Iterator[str]:
    """Run code-server until the end of the `with` block, with its data in `place`. Yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (place / "code-server.log").open("w")
    command = [str(program), "--user-data-dir", str(place / "data"), "--extensions-dir", str(extensions)]
    # With this grace time (in seconds), the processes of a closed window end soon. The default is hours.
    server = subprocess.Popen(
        [*command, "--auth", "none", "--bind-addr", f"127.0.0.1:{port}", "--reconnection-grace-time", "5"],
        env={**home, "VSCODE_PROXY_URI": ""},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(SECONDS)
        log.close()


def new_context(browser: Browser) -> BrowserContext:
    return browser.new_context(viewport={"width": 1100, "height": 620})


@contextmanager
def window_on(context: BrowserContext, address: str, opened: str, place: Path) -> Iterator[Code]:
    """Open a folder or file in a window until the end of the `with` block, without the state of earlier windows.

    `opened` is a query that is appended to VS Code's address, such as "folder=/path".
    """
    page = context.new_page()
    page.set_default_timeout(SECONDS * 1000)
    # These kinds of storage are cleared. The browser's cache is not, because the page loads faster with it.
    kept = {"origin": address, "storageTypes": "cookies,local_storage,indexeddb"}
    context.new_cdp_session(page).send("Storage.clearDataForOrigin", kept)
    try:
        end = time.monotonic() + SECONDS
        while True:
            try:
                page.goto(f"{address}/?{opened}")
                page.wait_for_selector(".monaco-workbench", timeout=60_000)
                break
            except PlaywrightError:  # code-server still starts
                assert time.monotonic() < end, f"{address} does not answer"
                time.sleep(0.3)
        try:
            yield Code(page)
        except BaseException:
            page.screenshot(path=place / "failed.png")
            raise
    finally:
        page.close()


@dataclass(frozen=True)
class Shared:
    """A code-server for several tests, and a browser whose cache has the page of this code-server."""

    address: str
    data: Path
    context: BrowserContext


@pytest.fixture(scope="module")
def shared(
    program: Path, extensions: Path, browser: Browser, runtime: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shared]:
    place = tmp_path_factory.mktemp("shared")
    with code_server(program, extensions, new_home(place / "home", runtime), place) as address:
        context = new_context(browser)
        yield Shared(address, place / "data", context)
        context.close()


@pytest.fixture
def start(shared: Shared, home: dict[str, str], folder: Path, wire: Wire, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that opens a window of the shared code-server with these settings.

    The language server that the window starts has the home directory of the test.
    """

    def start(wire: Wire = wire, opened: str = f"folder={folder}", **settings: Any) -> Any:
        write_settings(shared.data, wire.script(tmp_path / "repoformer-lsp", home), wire, settings)
        return window_on(shared.context, shared.address, opened, tmp_path)

    return start


@pytest.fixture
def start_alone(
    program: Path, extensions: Path, browser: Browser, home: dict[str, str], folder: Path, wire: Wire, tmp_path: Path
) -> Callable[..., Any]:
    """Return a function that starts a code-server with the home directory of the test, and opens a window of it."""

    @contextmanager
    def start(program: Path = program, **settings: Any) -> Iterator[Code]:
        write_settings(tmp_path / "data", wire.script(tmp_path / "repoformer-lsp"), wire, settings)
        with (
            code_server(program, extensions, home, tmp_path) as address,
            new_context(browser) as context,
            window_on(context, address, f"folder={folder}", tmp_path) as code,
        ):
            yield code

    return start


def write_settings(data: Path, server: Path, wire: Wire, settings: Mapping[str, Any]) -> None:
    """Write the settings of a user with an installed server, changed by `settings`. They replace all earlier ones."""
    user = {
        **USER_SETTINGS,
        **{f"repoformer.{name}": value for name, value in SETTINGS.items()},
        "repoformer.model": str(wire.model),
    }
    machine = {"repoformer.server.command": [str(server)]}  # settings of the scope "machine" have their own file
    for name, value in settings.items():
        (machine if name.startswith("repoformer.server.") else user)[name] = value
    for level, values in (("User", user), ("Machine", machine)):
        (data / level).mkdir(parents=True, exist_ok=True)
        (data / level / "settings.json").write_text(json.dumps(values))
    (data / "User" / "keybindings.json").unlink(missing_ok=True)


def check_same(code: Code, wire: Wire, file: Path) -> str:
    """Save the file, wait until it and the server's copy are identical, and return the text."""
    text = code.text(file).replace("\r\n", "\n")
    code.until(lambda: wire.text(file) == text, f"the editor has {text!r}, the server {wire.text(file)!r}")
    return text


def keep_picture(code: Code, keep: Any, tmp_path: Path, name: str) -> None:
    def take() -> Path:
        code.page.wait_for_timeout(1000)  # in this time (in ms), animations end and the text gets its final colors
        code.page.screenshot(path=tmp_path / name)
        return tmp_path / name

    keep(take, name)


def test_the_settings_page_is_the_servers() -> None:
    assert subprocess.run([sys.executable, EXTENSION / "settings.py", "--check"], check=False).returncode == 0


@pytest.mark.usefixtures("cold")
def test_type_accept_word_line_all_undo(
    start: Callable[..., Any], wire: Wire, folder: Path, keep: Any, tmp_path: Path
) -> None:
    file = folder / "arithmetic.py"
    before = file.read_text() + MULTIPLY
    with start() as code:
        watch = Stopwatch(EDITORS["code-server"].name)
        code.open("arithmetic.py")
        code.press("Control+End")
        code.type(MULTIPLY)
        assert code.text(file) == before, "the typed text is not saved"
        code.wait_ghost()
        watch.lap("opening a file")
        code.press("Tab")
        code.until(lambda: wire.text(file) != before, "nothing is accepted")
        whole = check_same(code, wire, file).removeprefix(before)
        assert whole.startswith("\n    "), "the accepted text has only one line"
        code.press("Control+Z")
        assert check_same(code, wire, file) == before, "one undo does not remove the whole text"
        code.press("Control+End", "Space", "Backspace")
        code.wait_ghost()
        code.press("Control+Alt+ArrowRight")
        code.until(lambda: len(wire.text(file)) > len(before), "a line is not accepted")
        line = check_same(code, wire, file).removeprefix(before)
        # VS Code accepts the line break alone, or with the next line.
        assert line.rstrip() in ("", "\n" + whole.split("\n")[1]), "not one line is accepted"
        code.press("Control+Z")
        assert check_same(code, wire, file) == before

        code.open("beds.py")
        file = folder / "beds.py"
        code.until(lambda: wire.front() == file.as_uri(), "the server does not learn which file is in front")
        code.press("Control+End")
        code.type(AREA[:-2])
        code.until(lambda: wire.text(file).endswith(AREA[:-2]), "not typed")
        watch.start()
        code.type(AREA[-2])
        code.until(lambda: code.ghost and wire.text(file).endswith(AREA[:-1]), "no ghost text")
        watch.lap("a key")
        code.type(AREA[-1])
        code.until(lambda: wire.text(file).endswith(AREA) and len(wire.answers()[-1]) == 1, "not answered")
        whole = code.wait_ghost()
        keep_picture(code, keep, tmp_path, "vscode.png")
        code.type(whole[0])
        code.until(lambda: code.ghost == whole[1:], "the rest is not shown after a typed character")
        code.press("Control+ArrowRight")
        code.until(lambda: len(wire.text(file)) > len(FILES["beds.py"] + AREA) + 1, "a word is not accepted")
        word = check_same(code, wire, file).removeprefix(FILES["beds.py"] + AREA)
        assert whole.startswith(word) and len(word) < len(whole), "not one word is accepted"
        code.until(lambda: code.ghost == whole[len(word) :], "the rest is not shown after a word is accepted")
        code.press("Tab", "Escape")
        assert check_same(code, wire, file) == FILES["beds.py"] + AREA + whole
        code.until(
            lambda: len(wire.sent("textDocument/didPartiallyAcceptCompletion")) >= 2,
            "the server does not learn of both accepted parts",
        )
        code.until(lambda: wire.sent("workspace/executeCommand"), "the server does not learn of the acceptance")


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
        whole = code.wait_ghost()
        code.press("Tab")
        code.until(lambda: wire.text(hard) != HARD, "nothing is accepted")
        assert check_same(code, wire, hard) == HARD + whole
        assert b"\r\n" in hard.read_bytes()
        assert wire.encoding() == "utf-16"


def test_brackets_that_the_editor_closes(start: Callable[..., Any], wire: Wire, folder: Path) -> None:
    file = folder / "beds.py"
    with start(**{"editor.autoClosingBrackets": "languageDefined"}) as code:
        code.open("beds.py")
        code.wait_status("ready")
        code.press("Control+End")
        code.type(AREA)
        code.until(lambda: wire.text(file).endswith(AREA + ")"), "the bracket is not closed")
        code.wait_ghost()
        code.press("Tab")
        code.until(lambda: not wire.text(file).endswith(AREA + ")"), "nothing is accepted")
        line = check_same(code, wire, file).splitlines()[-1]
        assert line.count("(") == line.count(")"), line


def test_dismiss_trigger_and_cycle(start: Callable[..., Any], wire: Wire, folder: Path) -> None:
    with start() as code:
        code.open("beds.py")
        code.press("Control+End")
        code.type(AREA)
        code.wait_ghost()
        code.press("Escape")
        code.until(lambda: not code.ghost, "not dismissed")
        code.press("Alt+Backslash")
        code.until(lambda: wire.asked()[-1]["context"]["triggerKind"] == 1, "the request is not marked as the user's")
        first = code.wait_ghost()
        found = []
        for _ in wire.answers()[-1]:
            code.press("Alt+BracketRight")
            code.until(
                lambda: code.ghost and (len(wire.answers()[-1]) == 1 or code.ghost not in found), "no other item"
            )
            found.append(code.ghost)
        assert found[-1] == first, "cycling through all items does not end at the first one"
        assert len(set(found)) == len(found), "an item is shown twice"
        code.press("Alt+BracketLeft")
        code.until(lambda: code.ghost == (found * 2)[-2], "cycling backwards does not work")
        last = code.ghost
        code.press("Tab")
        code.until(lambda: not wire.text(folder / "beds.py").endswith(AREA), "nothing is accepted")
        assert check_same(code, wire, folder / "beds.py") == FILES["beds.py"] + AREA + last


def test_why_shows_a_chunk_and_jumps_to_it(start: Callable[..., Any], keep: Any, tmp_path: Path) -> None:
    # With this threshold, the decision is to retrieve, because the probability of every model is higher.
    with start(**{"repoformer.threshold": 0.05}) as code:
        code.open("shapes.py")
        code.press("Control+End")  # the chunk is at the start of the file
        code.open("beds.py")
        code.wait_status("ready")
        code.press("Control+End")
        code.type(AREA)
        code.wait_ghost()
        code.command("Repoformer: Why This Completion")
        for said in ("Why this completion", "other files were read", "(eager): shown.", "fitted into the prompt"):
            code.page_shows(said)
        keep_picture(code, keep, tmp_path, "vscode-why.png")
        code.page_frame.locator("a:has-text('shapes.py')").first.click()
        code.page.wait_for_selector(".tab.active[data-resource-name='shapes.py']")
        code.until(lambda: code.line == "1", "the cursor is not at the chunk")


def test_every_entry_of_the_menu(
    start: Callable[..., Any], shared: Shared, wire: Wire, keep: Any, tmp_path: Path
) -> None:
    with start() as code:
        code.open("beds.py")
        code.wait_status("ready")
        code.press("Control+End")
        code.type(AREA)
        code.wait_ghost()
        code.press("Escape")
        code.page.click(ITEM)
        code.page.wait_for_selector(".quick-input-list .monaco-list-row:has-text('Pause for python')")
        keep_picture(code, keep, tmp_path, "vscode-menu.png")
        code.press("Escape")
        for entry, said in (("Pause for python", "off here (python)"), ("Pause for this workspace", "paused")):
            code.menu(entry)
            code.wait_status(said)
            code.menu("Resume")
            code.wait_status("ready")
        code.until(lambda: wire.received("repoformer/status")[-1]["state"] == "ready", "the server does not resume")
        code.menu("When to read other files")
        code.choose("For every completion")
        code.until(lambda: wire.received("repoformer/status")[-1]["policy"] == "always", "the policy does not change")
        code.menu("Which suggestions to show")
        code.choose("very likely")
        code.until(lambda: wire.received("repoformer/status")[-1]["suggest"] == "careful", "it does not change")
        stored = json.loads((shared.data / "User" / "settings.json").read_text())
        assert (stored["repoformer.policy"], stored["repoformer.suggest"]) == ("always", "careful")
        code.page.click(ITEM)
        for row in ("When to read other files…always", "Which suggestions to show…careful"):
            code.shows(".quick-input-list .monaco-list-row", row)
        code.choose("Which suggestions to show")
        code.choose("All suggestions")
        code.until(lambda: wire.received("repoformer/status")[-1]["suggest"] == "eager", "the setting does not change")
        assert len(wire.sent("initialize")) == 1, "another server was started"
        # The test checks only that the panels open. Their content needs native modules, which are not compiled here.
        code.menu("Logs")
        code.until(lambda: code.page.locator(".part.panel select").first.input_value() == "Repoformer", "no logs")
        code.menu("Doctor")
        code.shows(".part.panel", "doctor")
        code.menu("Restart the server")
        code.until(lambda: len(wire.sent("initialize")) == 2, "not started again")
        code.wait_status("ready")
        code.open("beds.py")
        code.type("#")
        code.press("Backspace")
        code.wait_ghost()
        code.menu("Why this completion?")
        code.page_shows("Why this completion")


def test_careful_hides_a_suggestion_unless_it_is_requested(start: Callable[..., Any], wire: Wire) -> None:
    with start(**{"repoformer.suggest": "careful", "editor.autoClosingQuotes": "never"}) as code:
        code.open("beds.py")
        code.wait_status("ready")
        code.press("Control+End")
        code.type(UNSURE)
        code.until(lambda: wire.answered(len(UNSURE)), "not answered")
        assert not code.ghost
        code.command("Repoformer: Why This Completion")
        code.page_shows("(careful): hidden.")
        code.page_shows("Nothing was suggested: not shown: the estimated probability that you keep it is ")
        code.press("Alt+Backslash")
        code.wait_ghost()
        code.command("Repoformer: Why This Completion")
        code.page_shows("(careful): shown, because you requested it.")


def test_settings_page_and_walkthrough(start: Callable[..., Any]) -> None:
    settings = json.loads((EXTENSION / "package.json").read_text())["contributes"]["configuration"]["properties"]
    with start() as code:
        code.wait_status("ready")
        code.command("Preferences: Open Settings (UI)")
        code.page.wait_for_selector(".settings-editor .suggest-input-container .focused")
        code.type("@ext:repoformer-lsp.repoformer-lsp")
        users = [name for name, schema in settings.items() if "scope" not in schema]  # the page leaves out the others
        code.shows(".settings-editor", f"{len(users)} Settings Found")
        # The walkthrough comes last: while it loads, it takes the focus, which would close the command palette.
        code.command("Welcome: Open Walkthrough...")
        code.choose("Complete code with a local model")
        code.shows(".gettingStartedContainer", "Install the server and a model")


def test_several_folders(start: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "orchard"
    other.mkdir()
    (other / "trees.py").write_text("def crown_area(radius: float) -> float:\n    return 3.14159 * radius * radius\n")
    both = tmp_path / "both.code-workspace"
    both.write_text(json.dumps({"folders": [{"path": str(folder)}, {"path": str(other)}]}))
    with start(opened=f"workspace={both}", **{"repoformer.policy": "always"}) as code:
        code.open("beds.py")
        code.wait_status("ready")
        code.press("Control+End")
        code.type("radius = 2.0\nshade = crown_area(")
        code.wait_ghost()
        code.command("Repoformer: Why This Completion")
        code.page_shows("trees.py:1-2")


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
    with start(wire=Wire(tmp_path / "none.jsonl", tmp_path / "no.gguf")) as code:
        code.open("beds.py")
        code.page.wait_for_selector(".notification-toast:has-text('no model at')")
        code.wait_status("no model at")
        code.press("Control+End")
        code.type("x = 1")
        assert code.text(folder / "beds.py").endswith("x = 1")
        assert code.page.locator(".notification-toast:has-text('no model at')").count() == 1


def test_a_setting_that_is_emptied_again(start: Callable[..., Any], shared: Shared, wire: Wire, tmp_path: Path) -> None:
    with start(**{"repoformer.model": str(tmp_path / "no.gguf")}) as code:
        code.wait_status("no model at")
        user = json.loads((shared.data / "User" / "settings.json").read_text())
        code.command("Preferences: Open User Settings (JSON)")
        code.page.wait_for_selector(".monaco-editor.focused .view-line:has-text('editor.fontSize')")
        code.press("Control+A")
        code.page.keyboard.insert_text(json.dumps({**user, "repoformer.model": ""}))
        code.press("Control+S")
        code.until(
            lambda: wire.received("repoformer/status")[-1]["state"] == "ready",
            "the emptied setting still has its old value",
        )
        assert len(wire.sent("initialize")) == 1, "another server was started"


def running(word: str) -> list[psutil.Process]:
    """Return the processes on this machine that have `word` as an argument."""
    return [process for process in psutil.process_iter(["cmdline"]) if word in (process.info["cmdline"] or [])]


def test_restarts_at_once_leave_one_server(
    start: Callable[..., Any], shared: Shared, home: dict[str, str], wire: Wire, tmp_path: Path
) -> None:
    # While the file `dumb` exists, the next start runs `sleep for_ever` instead of a server. The seconds contain this
    # process's id, so that `running` finds only this sleep.
    dumb, for_ever = tmp_path / "dumb", f"100000.{os.getpid()}"
    script = wire.script(tmp_path / "server", home)
    first, rest = script.read_text().split("\n", 1)
    script.write_text(f"{first}\n[ -e {dumb} ] && rm {dumb} && exec sleep {for_ever}\n{rest}")
    window = start(**{"repoformer.server.command": [str(script)]})
    keys = [{"key": "ctrl+alt+9", "command": "repoformer.restart"}]
    (shared.data / "User" / "keybindings.json").write_text(json.dumps(keys))
    with window as code:
        code.open("beds.py")
        code.wait_status("ready")
        # The extension waits two seconds for a stopped server to end. All three restarts are requested in this time.
        os.kill(int(wire.record.with_suffix(".pid").read_text()), signal.SIGSTOP)
        code.press(*["Control+Alt+9"] * 3)
        code.until(lambda: len(wire.sent("initialize")) == 4, "not started again each time")
        code.until(lambda: len(running(str(wire.record))) == 1, "more than one server is left")
        code.wait_status("ready")
        code.command("Repoformer: Why This Completion")  # needs the client that is connected to the running server
        code.page.wait_for_selector(".notification-toast:has-text('Nothing was completed')")

        dumb.touch()
        code.press("Control+Alt+9")
        code.until(lambda: running(for_ever), "the program that never answers is not started")
        code.press("Control+Alt+9")
        code.until(lambda: len(wire.sent("initialize")) == 5, "the restart waits for a server that never answers")
        code.wait_status("ready")
        assert not running(for_ever)
        assert len(running(str(wire.record))) == 1


def test_a_workspace_that_is_not_trusted(
    start_alone: Callable[..., Any], program: Path, wire: Wire, folder: Path, tmp_path: Path
) -> None:
    asking = tmp_path / "code-server"
    text = program.read_text().replace('$(cd "$(dirname "$0")" && pwd)', str(program.parent))
    asking.write_text(text.replace("--disable-workspace-trust", ""))
    asking.chmod(0o755)
    evil = {"model": "evil.gguf", "generatorModel": "evil.gguf", "generator": "gguf", "serverUrl": "http://evil/v1"}
    theirs = {**{f"repoformer.{name}": value for name, value in evil.items()}, "repoformer.chunks": 3}
    (folder / ".vscode").mkdir()
    (folder / ".vscode" / "settings.json").write_text(json.dumps(theirs))
    with start_alone(program=asking, **{"security.workspace.trust.startupPrompt": "never"}) as code:
        code.open("beds.py")
        code.wait_status("ready")
        told = code.until(lambda: wire.sent("workspace/didChangeConfiguration"), "the server is not told the settings")
        settings = told[-1]["settings"]["repoformer"]
        assert settings["chunks"] == 3, "a workspace cannot change a harmless setting"
        assert not {name for name, value in evil.items() if settings[name] == value}
        assert "evil" not in json.dumps([message for _, message in wire.messages("editor")])


def test_a_workspace_that_takes_long_to_index(start: Callable[..., Any], folder: Path, wire: Wire) -> None:
    fill(folder)
    with start() as code:
        code.open("beds.py")
        code.wait_status("indexing the workspace")
        code.press("Control+End")
        code.type(AREA)
        code.until(lambda: wire.text(folder / "beds.py").endswith(AREA), "typing is blocked")
        code.wait_ghost()
        indexing = [told["percent"] for told in wire.received("repoformer/status") if told["state"] == "indexing"]
        assert len(indexing) > 1 and indexing == sorted(indexing)


@pytest.fixture
def served(interim: Path, home: dict[str, str], tmp_path: Path) -> Iterator[Package]:
    """Serve what the extension's installation installs, and set the variables for it in `home`."""
    with package(tmp_path, interim.read_bytes()) as state:
        home.update(state.environment)
        yield state


def test_from_nothing_to_ghost_text_by_clicks(
    program: Path, extensions: Path, browser: Browser, home: dict[str, str], folder: Path, served: Package,
    keep: Any, tmp_path: Path,
) -> None:  # fmt: skip
    """The user has Python, an empty home directory, and no settings."""
    with (
        code_server(program, extensions, home, tmp_path) as address,
        new_context(browser) as context,
        window_on(context, address, f"folder={folder}", tmp_path) as code,
    ):
        page = code.page
        code.wait_status("the server is not installed")
        page.click(".notification-toast .codicon-notifications-clear, .notification-toast .codicon-notifications-hide")
        page.click(".gettingStartedContainer >> text=Complete code with a local model")
        code.shows(".gettingStartedContainer", "Install the server and a model")
        keep_picture(code, keep, tmp_path, "vscode-walkthrough.png")
        page.click(".gettingStartedContainer .monaco-button:has-text('Install')")
        code.shows(".monaco-dialog-box", "Install the Repoformer server and its model?")
        page.screenshot(path=tmp_path / "asking.png")
        assert not list(tmp_path.rglob("pyvenv.cfg")), "the server is installed before the user agrees"
        served.index.stall_at[hub_path(served.card)] = 60 << 20
        page.click(".monaco-dialog-box .monaco-button:has-text('Install')")
        toast = ".notification-toast:has-text('Downloading the model: ')"
        page.wait_for_selector(toast)
        assert served.index.stalled.wait(SECONDS)
        page.wait_for_selector(f"{toast} .monaco-progress-container.active.discrete")
        keep_picture(code, keep, tmp_path, "vscode-installing.png")
        served.index.resume.set()
        page.wait_for_selector(".notification-toast:has-text('The server is installed. Open a file and type.')")
        code.wait_status("ready")
        page.screenshot(path=tmp_path / "installed.png")
        page.click(".explorer-viewlet .monaco-list-row:has-text('beds.py')")
        page.wait_for_selector(".tab.active[data-resource-name='beds.py']")
        page.click(".editor-instance .view-line >> nth=-1")
        code.press("Control+End")
        code.type(AREA)
        code.wait_ghost()
        page.screenshot(path=tmp_path / "first.png")
    assert list(Path(home["XDG_CACHE_HOME"]).rglob(served.card.file)), "the model is not installed"


def test_an_installation_that_fails_and_is_tried_again(
    start_alone: Callable[..., Any], served: Package, tmp_path: Path
) -> None:
    wheel = served.index.files.pop(f"/files/{WHEEL}")
    offer = ".notification-toast:has-text('not installed yet')"
    with start_alone(**{"repoformer.server.command": []}) as code:
        code.page.wait_for_selector(offer)
        code.page.click(".notification-toast a:has-text('Ask Again')")
        code.page.wait_for_selector(offer, state="hidden")
        code.page.wait_for_timeout(5000)  # in this time (in ms), the browser stores the choice

        code.reload()
        code.wait_status("the server is not installed")
        code.open("beds.py")
        assert not code.page.locator(offer).count(), "the offer appears again after the user declined it"
        code.command("Repoformer: Doctor")
        code.page.wait_for_selector(offer)
        code.page.click(".notification-toast a:has-text('Install')")
        code.page.click(".monaco-dialog-box .monaco-button:has-text('Install')")
        failed = ".notification-toast:has-text('repoformer-lsp cannot be installed')"
        code.page.wait_for_selector(f"{failed}:has-text('Correct the setting repoformer.server.package')")
        code.page.screenshot(path=tmp_path / "no-package.png")
        served.index.files[f"/files/{WHEEL}"] = wheel
        code.page.click(".notification-toast a:has-text('Try Again')")
        code.page.wait_for_selector(".notification-toast:has-text('The server is installed')")
        code.wait_status("ready")


def test_nothing_to_install_with(start_alone: Callable[..., Any], home: dict[str, str], tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "dirname"):
        (programs / name).symlink_to(shutil.which(name) or name)
    home["PATH"] = str(programs)
    Path(home["HOME"], ".profile").write_text(f"PATH={programs}\n")  # VS Code gets the PATH from a login shell
    with start_alone(**{"repoformer.server.command": []}) as code:
        code.page.click(".notification-toast a:has-text('Install')")
        code.page.click(".monaco-dialog-box .monaco-button:has-text('Install')")
        code.page.wait_for_selector(".notification-toast:has-text('Install Python 3.10 or later')")
        code.page.screenshot(path=tmp_path / "no-python.png")
