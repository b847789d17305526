"""Editors without a client of this project, with the configurations in `docs/editors`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.editors.conftest import REPOSITORY
from tests.editors.editors import install
from tests.editors.terminal import terminal
from tests.editors.wire import Wire
from tests.editors.workspace import AREA

PAGES = REPOSITORY / "docs" / "editors"
GHOST = re.compile(re.escape(AREA) + r"\w")


def block(page: str, heading: str, language: str) -> str:
    """Return the first code block in `language` below a heading of a page in `docs/editors`."""
    text = (PAGES / page).read_text("utf-8")
    found = re.search(rf"^##+ {re.escape(heading)}\n.*?^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert found, f"{page} has no code block in {language} below {heading}"
    return found[1]


def patient(configuration: str, place: str, setting: str) -> str:
    """Return a configuration with the text `setting` inserted after the text `place`.

    The tests insert a long `patience`, because the machine may be busy.
    """
    assert configuration.count(place) == 1
    return configuration.replace(place, place + setting)


@pytest.fixture
def env(home: dict[str, str], wire: Wire) -> dict[str, str]:
    """The environment variables of a user with `repoformer-lsp` on the PATH."""
    programs = Path(home["HOME"], "bin")
    programs.mkdir()
    wire.script(programs / "repoformer-lsp")
    return {**home, "PATH": f"{programs}:{home['PATH']}"}


def is_ready(wire: Wire) -> bool:
    return any(status["state"] == "ready" for status in wire.received("repoformer/status"))


def test_helix(env: dict[str, str], folder: Path, wire: Wire, tmp_path: Path) -> None:
    install("emacs")  # this script also installs tmux
    program = install("helix") / "hx"
    settings = Path(env["XDG_CONFIG_HOME"], "helix")
    settings.mkdir(parents=True)
    page = patient(
        block("other.md", "Helix", "toml"), "completion = true", ', patience = 60, threads = 1, suggest = "eager"'
    )
    (settings / "languages.toml").write_text(page)
    with terminal([str(program), "beds.py"], env=env, cwd=folder, socket=tmp_path / "tmux") as screen:
        screen.wait(lambda _: is_ready(wire), "the server")
        screen.press("g", "e", "o")
        screen.type(AREA)
        screen.wait(re.compile(re.escape(AREA) + r"\)\s+~\s+\w.* text\b").search, "the suggestion in the menu")
        screen.press("C-n", "Enter")
        screen.wait(GHOST.search, "the accepted suggestion")


def test_lsp_mode(env: dict[str, str], folder: Path, wire: Wire, tmp_path: Path) -> None:
    packages = sorted((install("emacs") / "lisp").iterdir())
    page = patient(
        block("other.md", "lsp-mode (Emacs)", "elisp"),
        '(:policy "selective"',
        ' :patience 60 :threads 1 :suggest "eager"',
    )
    start = tmp_path / "init.el"
    start.write_text(
        "".join(f'(add-to-list \'load-path "{package}")\n' for package in packages)
        + "(require 'lsp-mode)\n(setq lsp-auto-guess-root t lsp-enable-suggest-server-download nil)\n"
        + f"(setq create-lockfiles nil)\n{page}\n(add-hook 'python-mode-hook #'lsp)\n"
    )
    command = ["emacs", "-nw", "-Q", "-l", str(start), "beds.py"]
    with terminal(command, env=env, cwd=folder, socket=tmp_path / "tmux") as screen:
        screen.wait(lambda _: is_ready(wire), "the server")
        screen.press("M->")
        screen.type(AREA)
        screen.wait(GHOST.search, "ghost text")


def test_neovim_without_the_plugin(env: dict[str, str], folder: Path, wire: Wire, tmp_path: Path) -> None:
    install("emacs")  # this script also installs tmux
    program = install("neovim") / "nvim"
    start = tmp_path / "init.lua"
    page = block("neovim.md", "Without the plugin", "lua")
    start.write_text(
        patient(page, "root_markers = { '.git' }", ", init_options = { patience = 60, threads = 1, suggest = 'eager' }")
    )
    command = [str(program), "-n", "-u", str(start), "beds.py"]
    with terminal(command, env=env, cwd=folder, socket=tmp_path / "tmux") as screen:
        screen.wait(lambda _: is_ready(wire), "the server")
        screen.press("G", "o")
        screen.type(AREA)
        screen.wait(GHOST.search, "ghost text")
        screen.press("Tab")
        screen.wait(lambda _: GHOST.search(wire.text(folder / "beds.py")), "the accepted suggestion")
