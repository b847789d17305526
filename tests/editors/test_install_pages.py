"""Run the commands of the install pages exactly as printed, in an empty home directory and a copy of the repository.

Two programs are replaced. `uv` installs a link to the server of this checkout, because a real installation takes long.
`code` runs code-server.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pynvim
import pytest

from tests.editors.conftest import REPOSITORY
from tests.editors.editors import install
from tests.editors.terminal import terminal
from tests.editors.test_neovim import leave
from tests.editors.wire import SERVER
from tests.editors.workspace import AREA, SECONDS


def commands(page: str) -> str:
    """Return the shell commands below the heading Install of a page."""
    text = (REPOSITORY / "docs" / "editors" / page).read_text("utf-8")
    found = re.search(r"## Install\n.*?```sh\n(.*?)```", text, re.DOTALL)
    assert found, f"{page} has no shell commands below its heading Install"
    return found[1]


@pytest.fixture
def person(home: dict[str, str], interim: Path, tmp_path: Path) -> dict[str, str]:
    """The environment variables of a user with `uv` and `code`, whose caches have the model and npm's downloads."""
    place = Path(home["HOME"])
    bin_, programs = place / ".local" / "bin", tmp_path / "programs"
    bin_.mkdir(parents=True)
    programs.mkdir()
    uv = f'[ "$*" = "tool install ." ] && ln -s {SERVER} {bin_}/repoformer-lsp'
    for name, script in (("uv", uv), ("code", f'exec {install("code-server") / "code-server"} "$@"')):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    cache = place / ".cache" / "repoformer-lsp" / "models"
    cache.mkdir(parents=True)
    (cache / interim.name).symlink_to(interim)
    npm = os.environ.get("NPM_CONFIG_CACHE", str(Path.home() / ".npm"))
    return {**home, "PATH": f"{bin_}:{programs}:{home['PATH']}", "NPM_CONFIG_CACHE": npm}


def follow(page: str, person: dict[str, str], tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    ignore = shutil.ignore_patterns("node_modules", "dist", "*.vsix", "__pycache__")
    shutil.copytree(REPOSITORY / "editors", checkout / "editors", ignore=ignore)
    done = subprocess.run(
        ["bash", "-euxc", commands(page)], cwd=checkout, env=person, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", ["neovim", "neovim-0.11"])
def test_neovim(person: dict[str, str], folder: Path, tmp_path: Path, version: str) -> None:
    follow("neovim.md", person, tmp_path)
    env = [f"{name}={value}" for name, value in person.items()]
    program = str(install(version) / "nvim")
    nvim = pynvim.attach("child", argv=["env", "-i", "-C", str(folder), *env, program, "--headless", "--embed", "-n"])
    try:
        nvim.command("edit beds.py")
        nvim.input("Go" + AREA)
        end = time.monotonic() + SECONDS
        while not nvim.exec_lua("return require('repoformer.ghost').shown() ~= nil"):
            assert time.monotonic() < end, nvim.command_output("messages")
            time.sleep(0.1)
    finally:
        leave(nvim)


def test_emacs(person: dict[str, str], folder: Path, tmp_path: Path) -> None:
    install("emacs")
    follow("emacs.md", person, tmp_path)
    page = (REPOSITORY / "docs" / "editors" / "emacs.md").read_text("utf-8")
    lines = re.search(r"```elisp\n(.*?)```", page, re.DOTALL)
    assert lines, "emacs.md has no lines for the init file"
    Path(person["HOME"], "repoformer-lsp").symlink_to(tmp_path / "checkout")
    # The setting `eager` shows each suggestion, even a wrong one, and this test accepts any text.
    settings = '(setq repoformer-settings \'(:suggest "eager" :patience 60))\n'
    Path(person["HOME"], ".emacs").write_text(settings + lines[1])
    with terminal(["emacs", "-nw", "beds.py"], env=person, cwd=folder, socket=tmp_path / "tmux") as screen:
        screen.wait(lambda text: "repoformer:" in text, "the server in the mode line")
        screen.press("M->")
        screen.type(AREA)
        screen.wait(re.compile(re.escape(AREA) + r"\w").search, "ghost text")


def test_vscode(person: dict[str, str], tmp_path: Path) -> None:
    follow("vscode.md", person, tmp_path)
    listed = subprocess.run(["code", "--list-extensions"], env=person, capture_output=True, text=True, check=True)
    assert "repoformer-lsp.repoformer-lsp" in listed.stdout
