"""The plugin for Neovim. Most tests control Neovim by its API, without a screen.

Neovim 0.12 has inline completion of its own, which the plugin uses. For Neovim 0.11, the plugin has another one.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pynvim
import pytest

from tests.editors.conftest import REPOSITORY
from tests.editors.editors import EDITORS, Stopwatch, install
from tests.editors.package import WHEEL, Package, package, put_uv
from tests.editors.terminal import terminal
from tests.editors.wire import Wire
from tests.editors.workspace import AREA, HARD, MULTIPLY, SECONDS, SETTINGS, UNSURE, fill
from tests.standin_index import hub_path

PLUGIN = REPOSITORY / "editors" / "neovim"
INIT = """
vim.opt.runtimepath:prepend(%(plugin)r)
vim.opt.swapfile = false
require('repoformer').setup(vim.tbl_deep_extend('force', { cmd = %(cmd)s, settings = %(settings)s }, %(options)s))
"""

# Simulated servers in Lua, for tests that depend on the moment of an answer. At the end of a line, the answer of the
# server `name` is an item with the text of the line and `says[name]`, like the real server's. If `says[name]` is nil,
# requests wait, and `answer(name, text)` answers the last one.
SCRIPTED = """
says, waiting, delay = {}, {}, 0
function answer(name, text)
  waiting[name](text)
end
function scripted(name)
  return function(dispatchers)
    local id, ended = 0, false
    local function leave()
      ended = true
      dispatchers.on_exit(0, 0)
    end
    local function request(method, params, callback)
      id = id + 1
      if method == 'initialize' then
        local can = { positionEncoding = 'utf-8', textDocumentSync = 1, inlineCompletionProvider = true }
        vim.defer_fn(function() callback(nil, { capabilities = can }) end, delay)
      elseif method == 'textDocument/inlineCompletion' then
        local at = params.position
        local line = vim.api.nvim_buf_get_lines(0, at.line, at.line + 1, false)[1]
        local typed = #line == at.character and line or ''
        local start = { line = at.line, character = at.character - #typed }
        waiting[name] = function(text)
          callback(nil, { items = { { insertText = typed .. text, range = { start = start, ['end'] = at } } } })
        end
        if says[name] then
          vim.schedule(function() answer(name, says[name]) end)
        end
      else
        vim.schedule(function() callback(nil, vim.NIL) end)
      end
      return true, id
    end
    return {
      request = request,
      notify = function(method)
        if method == 'exit' then leave() end
        return true
      end,
      is_closing = function() return ended end,
      terminate = leave,
    }
  end
end
vim.opt.runtimepath:prepend(%(plugin)r)
vim.opt.swapfile = false
%(before)s
require('repoformer').setup{ cmd = { 'true' } }
vim.lsp.config('repoformer', { cmd = scripted('repoformer') })
"""


@pytest.fixture(params=["neovim", "neovim-0.11"], scope="session")
def nvim(request: pytest.FixtureRequest) -> Path:
    return install(request.param) / "nvim"


def title(nvim: Path) -> str:
    return EDITORS[nvim.parent.name].name


def init_lua(program: Path, options: str) -> str:
    settings = "{" + ", ".join(f"{name} = {json.dumps(value)}" for name, value in SETTINGS.items()) + "}"
    return INIT % {"plugin": str(PLUGIN), "cmd": f"{{ {str(program)!r} }}", "settings": settings, "options": options}


class Neovim:
    """A running Neovim: sends keys, and returns what its user sees."""

    def __init__(self, api: pynvim.Nvim) -> None:
        self.api = api

    def keys(self, keys: str) -> None:
        self.api.input(keys)

    @property
    def text(self) -> str:
        return "\n".join(self.api.current.buffer[:]) + "\n"

    @property
    def ghost(self) -> str | None:
        """The visible ghost text, which is the part of the suggestion that is not typed yet, or None."""
        rest: str | None = self.api.exec_lua("local s = require('repoformer.ghost').shown() return s and s.rest")
        return rest

    @property
    def marks(self) -> list[Any]:
        """All extmarks of the current buffer in the two namespaces of ghost text: Neovim's and the plugin's."""
        lua = """
        local ns = vim.api.nvim_get_namespaces()
        local all = {}
        for _, name in ipairs{ 'nvim.lsp.inline_completion', 'repoformer.ghost' } do
          if ns[name] then vim.list_extend(all, vim.api.nvim_buf_get_extmarks(0, ns[name], 0, -1, {})) end
        end
        return all"""
        marks: list[Any] = self.api.exec_lua(lua)
        return marks

    def until(self, holds: Callable[..., Any], what: str) -> Any:
        end = time.monotonic() + SECONDS
        while not (value := holds()):
            assert time.monotonic() < end, f"{what}; buffer:\n{self.text}\nmessages: {self.messages()}"
            time.sleep(0.05)
        return value

    def wait_ghost(self) -> str:
        ghost: str = self.until(lambda: self.ghost, "no ghost text")
        return ghost

    @property
    def status(self) -> str:
        line: str = self.api.exec_lua("return require('repoformer').statusline()")
        return line

    def wait_ready(self) -> None:
        self.until(lambda: "✓" in self.status, "never ready")

    def messages(self) -> str:
        messages: str = self.api.exec_lua("return vim.api.nvim_exec2('messages', { output = true }).output")
        return messages


def leave(api: pynvim.Nvim) -> None:
    """End Neovim and wait until its process has ended."""
    api.exec_lua("vim.defer_fn(function() vim.cmd('qa!') end, 1)")
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            api.eval("1")
        except (OSError, EOFError):
            break
        time.sleep(0.05)
    api.close()


def attach(nvim: Path, home: dict[str, str], folder: Path, init: Path, file: str) -> pynvim.Nvim:
    """Start Neovim without a screen, with an init file, and open a file of `folder`. `leave` ends the process."""
    env = [f"{name}={value}" for name, value in home.items()]
    command = ["env", "-i", "-C", str(folder), *env, str(nvim), "--headless", "--embed", "-u", str(init), file]
    api = pynvim.attach("child", argv=command)
    api.command("set columns=100 lines=30")
    return api


@pytest.fixture
def start(
    nvim: Path, home: dict[str, str], folder: Path, wire: Wire, tmp_path: Path
) -> Iterator[Callable[..., Neovim]]:
    running: list[pynvim.Nvim] = []

    def start(file: str, options: str = "{}", wire: Wire = wire) -> Neovim:
        init = tmp_path / "init.lua"
        init.write_text(init_lua(wire.script(tmp_path / "repoformer-lsp"), options))
        running.append(attach(nvim, home, folder, init, file))
        return Neovim(running[-1])

    yield start
    for api in running:
        leave(api)


@pytest.fixture
def scripted(nvim: Path, home: dict[str, str], folder: Path, tmp_path: Path) -> Iterator[Callable[..., Neovim]]:
    """Return a function that starts Neovim with an empty file and the simulated servers of `SCRIPTED`.

    The function's argument `before` is Lua code that runs before the plugin's setup.
    """
    running: list[pynvim.Nvim] = []

    def scripted(before: str = "") -> Neovim:
        init = tmp_path / "init.lua"
        init.write_text(SCRIPTED % {"plugin": str(PLUGIN), "before": before})
        running.append(attach(nvim, home, folder, init, "new.py"))
        running[-1].command("set expandtab shiftwidth=4 softtabstop=-1")
        return Neovim(running[-1])

    yield scripted
    for api in running:
        leave(api)


def say(neovim: Neovim, text: str, server: str = "repoformer") -> None:
    """Set the text with which a simulated server answers from now on. With an empty text, its requests wait."""
    neovim.api.exec_lua("local name, text = ... says[name] = text ~= '' and text or nil", server, text)


def type_and_see(neovim: Neovim, keys: str, ghost: str) -> None:
    """Let the server answer with the text `ghost`, type keys, and wait until that text is shown.

    After that, the server does not answer.
    """
    say(neovim, ghost)
    neovim.keys(keys)
    neovim.until(lambda: neovim.ghost == ghost, f"{ghost!r} is not shown")
    say(neovim, "")


def check_same(neovim: Neovim, wire: Wire, file: Path) -> None:
    """Wait until the buffer and the server's copy of it are identical. Neovim sends changes with a short delay."""
    neovim.until(lambda: wire.text(file) == neovim.text, f"the server has {wire.text(file)!r}")


def test_type_accept_word_line_all_undo(start: Callable[..., Neovim], wire: Wire, folder: Path) -> None:
    neovim = start("arithmetic.py")
    neovim.keys("Gi" + MULTIPLY)
    whole = neovim.wait_ghost()
    before = neovim.text
    first_line = "\n" + whole.split("\n")[1]

    def has(text: str) -> bool:
        return neovim.text == before.replace(MULTIPLY, MULTIPLY + text)

    part = "return require('repoformer.ghost').part(..., 'line')"
    assert neovim.api.exec_lua(part, "a\n\nb") == "a"
    assert neovim.api.exec_lua(part, "\n\nb\nc") == "\n\nb", "an empty line and the next one"
    neovim.keys("<M-C-Right>")
    neovim.until(lambda: has(first_line), "no line accepted")
    neovim.keys("<Esc>u")
    neovim.until(lambda: has(""), "one `u` does not undo the line")

    neovim.keys("A<Space><BS>")
    neovim.wait_ghost()
    neovim.keys("<M-Right>")
    neovim.until(lambda: has("\n    " + whole.split()[0]), "no word accepted")
    neovim.keys("<Esc>u")
    neovim.until(lambda: has(""), "one `u` does not undo the word")

    neovim.keys("A<Space><BS>")
    assert neovim.wait_ghost() == whole
    neovim.keys("<Tab>")
    neovim.until(lambda: has(whole), "not accepted")
    assert neovim.api.current.window.cursor[0] == neovim.text[: neovim.text.index(whole) + len(whole)].count("\n") + 1
    neovim.keys("# more<Esc>u")
    neovim.until(lambda: has(whole), "one undo of the typed text also removes the accepted text")
    neovim.keys("u")
    neovim.until(lambda: has(""), "one `u` does not undo all of it")
    check_same(neovim, wire, folder / "arithmetic.py")
    assert len(wire.sent("textDocument/didShowCompletion")) >= 3
    parts = [part for part in (first_line, "\n    " + whole.split()[0]) if part != whole]
    lengths = [params["acceptedLength"] for params in wire.sent("textDocument/didPartiallyAcceptCompletion")]
    assert lengths == [len(MULTIPLY + part) for part in parts]
    assert {params["command"] for params in wire.sent("workspace/executeCommand")} == {"repoformer.accepted"}


@pytest.mark.usefixtures("cold")
def test_typing_through_and_away(start: Callable[..., Neovim], wire: Wire, folder: Path, nvim: Path) -> None:
    watch = Stopwatch(title(nvim))
    neovim = start("beds.py")
    neovim.keys("Go" + AREA)
    neovim.wait_ghost()
    watch.lap("opening a file")
    neovim.keys("<Esc>cc" + AREA[:-2])
    neovim.until(lambda: neovim.text.endswith(AREA[:-2] + "\n"), "not typed")
    watch.start()
    neovim.keys(AREA[-2])
    neovim.wait_ghost()
    watch.lap("a key")

    neovim.keys("<Esc>cc" + AREA)
    neovim.until(lambda: neovim.text.endswith(AREA + "\n"), "not typed")
    whole = neovim.wait_ghost()
    for typed in range(1, 4):
        neovim.keys(whole[typed - 1])
        neovim.until(lambda typed=typed: neovim.ghost == whole[typed:], f"the rest is not shown after {typed} keys")
    neovim.keys("<Tab>")  # before the server answers the request for the last key
    neovim.until(lambda: neovim.text.endswith(AREA + whole + "\n"), "not accepted after typing through")

    neovim.keys("<Esc>uA<Space><BS>")
    neovim.wait_ghost()
    neovim.keys("#")
    neovim.until(lambda: not neovim.marks or neovim.ghost, "ghost text that does not fit stays on screen")
    neovim.keys("<Esc>")
    neovim.until(lambda: not neovim.marks, "ghost text stays after insert mode")
    check_same(neovim, wire, folder / "beds.py")


def test_dismiss_trigger_and_cycle(start: Callable[..., Neovim], wire: Wire, folder: Path) -> None:
    neovim = start("beds.py")
    neovim.keys("Go" + AREA)
    neovim.wait_ghost()
    before = neovim.text
    neovim.keys("<C-]>")
    neovim.until(lambda: not neovim.marks, "not dismissed")
    neovim.keys("<M-Bslash>")
    neovim.until(lambda: wire.asked()[-1]["context"]["triggerKind"] == 1, "the request is not marked as the user's")
    first = neovim.wait_ghost()
    assert neovim.text == before

    shows = len(wire.sent("textDocument/didShowCompletion"))
    neovim.keys("x<BS>")  # an automatic request, which gets one item
    neovim.until(lambda: wire.asked()[-1]["context"]["triggerKind"] == 2, "no automatic request is sent")
    neovim.until(lambda: len(wire.sent("textDocument/didShowCompletion")) > shows, "not shown again")
    assert neovim.wait_ghost() == first
    count = 0
    found: list[str] = []
    while count == 0 or len(found) < count:
        shown = len(wire.sent("textDocument/didShowCompletion"))
        neovim.keys("<M-]>")
        neovim.until(lambda shown=shown: len(wire.sent("textDocument/didShowCompletion")) > shown, "no other is shown")
        # The key sends an explicit request (kind 1). An earlier automatic request may be answered after it.
        count = len(wire.answers(kind=1)[-1])
        found.append(neovim.wait_ghost())
    assert found[-1] == first, "cycling through all items does not end at the first one"
    assert len(set(found)) == count, "an item is shown twice"
    neovim.keys("<M-[>")
    neovim.until(lambda: neovim.ghost == (found * 2)[-2], "cycling backwards does not work")
    last = neovim.wait_ghost()
    neovim.keys("<Tab>")
    neovim.until(lambda: neovim.text == before[:-1] + last + "\n", "the accepted text is not the shown one")
    check_same(neovim, wire, folder / "beds.py")


def test_tab_does_what_it_did(start: Callable[..., Neovim]) -> None:
    neovim = start("beds.py", "{ settings = { enabled = false } }")
    neovim.keys("Go<Tab>x")
    neovim.until(lambda: neovim.text.endswith("\n    x\n"), "Tab no longer indents")
    neovim.keys("<Tab><M-Right>y")
    neovim.until(lambda: neovim.text.rstrip().endswith("y"), "keys are lost")
    assert neovim.text.splitlines()[-1].split() == ["x", "y"]


def test_tab_indents_a_blank_line(start: Callable[..., Neovim]) -> None:
    neovim = start("arithmetic.py")
    neovim.keys("Gi" + MULTIPLY)
    neovim.wait_ghost()
    neovim.keys("<CR><C-u>")
    neovim.until(lambda: (g := neovim.ghost) and g.startswith("    "), "no ghost text that begins with an indentation")
    neovim.keys("<Tab>")
    neovim.until(lambda: neovim.text.endswith(MULTIPLY + "\n    \n"), "Tab takes the suggestion instead of indenting")


def test_middle_of_a_line(start: Callable[..., Neovim], wire: Wire, folder: Path) -> None:
    neovim = start("names.py")
    neovim.keys("G$F(a")
    whole = neovim.wait_ghost()
    neovim.keys("<Tab>")
    neovim.until(
        lambda: neovim.text.splitlines()[1:] == f"print(len({whole}))".split("\n"),
        "the text is not accepted at the cursor",
    )
    check_same(neovim, wire, folder / "names.py")


@pytest.mark.parametrize("ends", ["unix", "dos"])
def test_hard_characters_before_the_cursor(start: Callable[..., Neovim], wire: Wire, folder: Path, ends: str) -> None:
    lines = HARD.split("\n")
    file = folder / "hard.py"
    file.write_bytes("\n".join([*lines[:-1], ""]).replace("\n", {"unix": "\n", "dos": "\r\n"}[ends]).encode())
    neovim = start("hard.py")
    neovim.api.command("setlocal noexpandtab indentexpr= nocindent noautoindent")
    neovim.keys("Go<C-v><Tab>" + lines[-1].lstrip("\t"))
    whole = neovim.wait_ghost()
    neovim.keys("<Tab>")
    neovim.until(lambda: neovim.text == HARD + whole + "\n", "not accepted exactly")
    assert neovim.api.eval("&fileformat") == ends
    check_same(neovim, wire, file)
    assert wire.encoding() == "utf-8"


def test_why_shows_a_chunk_and_jumps_to_it(start: Callable[..., Neovim], wire: Wire, folder: Path) -> None:
    neovim = start("beds.py", "{ settings = { policy = 'always' } }")
    neovim.wait_ready()
    neovim.keys("Go" + AREA)
    neovim.wait_ghost()
    neovim.keys("<Esc>:Repoformer why<CR>")
    neovim.until(lambda: "Why this completion" in neovim.text, "the page of the completion is not shown")
    for said in (
        "other files were read",
        "P(kept) ",
        "(eager): **shown**",
        "fitted into the prompt",
        " ms",
        "evaluated tokens",
    ):
        assert said in neovim.text
    [line] = [text for text in neovim.text.splitlines() if "shapes.py:" in text]
    assert wire.front() == (folder / "beds.py").as_uri()
    neovim.keys("/shapes.py<CR><CR>")
    neovim.until(lambda: neovim.api.current.buffer.name.endswith("shapes.py"), "no jump")
    assert neovim.api.current.window.cursor[0] == int(line.split(":")[-1].split("-")[0])
    neovim.until(lambda: wire.front() == (folder / "shapes.py").as_uri(), "the server does not know what is in front")
    neovim.api.command("buffer beds.py")
    neovim.until(
        lambda: wire.front() == (folder / "beds.py").as_uri(),
        "the server does not know that the first buffer is in front again",
    )
    # Only the last notification counts. Neovim may send two, because it may attach a buffer after it enters the buffer.
    assert wire.sent("textDocument/didFocus")[-1]["position"]["line"] == wire.asked()[-1]["position"]["line"]


def test_pause_policy_and_status(start: Callable[..., Neovim], wire: Wire) -> None:
    neovim = start("beds.py")
    neovim.wait_ready()
    language = (("pause language", "∅"), ("restart", "∅"), ("resume", "✓"), ("restart", "✓"))
    for command, sign in (("pause", "∅"), ("resume", "✓"), *language):
        neovim.api.command(f"Repoformer {command}")
        neovim.until(lambda sign=sign: sign in neovim.status, command)
    neovim.api.command("Repoformer policy never")
    wait_setting(neovim, "policy", "never")
    assert wire.received("repoformer/status")[-1]["policy"] == "never"
    neovim.api.command("Repoformer suggest careful")
    wait_setting(neovim, "suggest", "careful")
    neovim.api.command("Repoformer suggest")
    assert "policy never, suggest careful" in neovim.messages()
    for action, values in (("policy", ["always", "never", "selective"]), ("suggest", ["balanced", "careful", "eager"])):
        assert neovim.api.call("getcompletion", f"Repoformer {action} ", "cmdline") == values
    neovim.api.command("Repoformer restart")
    neovim.wait_ready()
    wait_setting(neovim, "suggest", "careful")
    assert len(wire.sent("initialize")) == 4, "the server was not restarted exactly by the command"


def wait_setting(neovim: Neovim, name: str, value: str) -> None:
    """Wait until the server's status reports this value of a setting."""
    lua = "return (require('repoformer.status').of(0) or {})[...]"
    neovim.until(lambda: neovim.api.exec_lua(lua, name) == value, f"{name} does not become {value}")


def test_careful_hides_a_suggestion_unless_it_is_requested(start: Callable[..., Neovim], wire: Wire) -> None:
    neovim = start("beds.py")
    neovim.wait_ready()
    neovim.keys("Go" + UNSURE)
    neovim.wait_ghost()
    neovim.keys("<Esc>")
    neovim.api.command("Repoformer suggest careful")
    wait_setting(neovim, "suggest", "careful")
    answered = len(wire.answers())
    neovim.keys("A<Space><BS>")
    neovim.until(lambda: len(wire.answers()) > answered, "not answered")
    neovim.keys("<Esc>:Repoformer why<CR>")
    neovim.until(lambda: "(careful): **hidden**." in neovim.text, "the page does not say that the suggestion is hidden")
    assert "Nothing was suggested: not shown: the estimated probability that you keep it is " in neovim.text
    neovim.keys("q")
    neovim.until(lambda: "Why this completion" not in neovim.text, "not closed")
    neovim.keys("A<M-Bslash>")
    neovim.wait_ghost()
    neovim.keys("<Esc>:Repoformer why<CR>")
    neovim.until(
        lambda: "(careful): **shown**, because you requested it." in neovim.text,
        "the page does not say why the suggestion is shown",
    )


def test_server_killed_and_restarted(start: Callable[..., Neovim], wire: Wire, folder: Path) -> None:
    neovim = start("beds.py")
    neovim.wait_ready()
    wire.kill()
    neovim.keys("Gox = 1<Esc>")
    neovim.until(lambda: neovim.text.endswith("x = 1\n"), "typing is blocked")
    neovim.until(lambda: len(wire.sent("initialize")) == 2, "not started again")
    neovim.wait_ready()
    assert neovim.messages().count("quit with exit code") == 1
    neovim.keys("cc" + AREA)
    neovim.wait_ghost()
    check_same(neovim, wire, folder / "beds.py")
    neovim.keys("<Esc>")
    neovim.api.command("Repoformer restart")
    neovim.wait_ready()
    neovim.keys("A<Space><BS>")
    neovim.wait_ghost()
    assert len(wire.sent("initialize")) == 3
    check_same(neovim, wire, folder / "beds.py")


def test_no_model(start: Callable[..., Neovim], tmp_path: Path) -> None:
    neovim = start("beds.py", wire=Wire(tmp_path / "none.jsonl", tmp_path / "no.gguf"))
    neovim.until(lambda: "no model at" in neovim.messages(), "the missing model is not named")
    neovim.keys("Gox = 1<CR>y = 2<CR>z")
    neovim.until(lambda: neovim.text.endswith("x = 1\ny = 2\nz\n"), "typing is blocked")
    assert neovim.messages().count("no model at") == 1
    assert "✗" in neovim.status


def test_no_program(start: Callable[..., Neovim]) -> None:
    neovim = start("beds.py", "{ cmd = { 'no-such-program' } }")
    assert neovim.messages().count("no-such-program") == 1
    neovim.api.command("edit names.py")
    assert neovim.messages().count("no-such-program") == 1


def test_a_workspace_that_takes_long_to_index(start: Callable[..., Neovim], folder: Path, wire: Wire) -> None:
    fill(folder)
    neovim = start("beds.py")
    neovim.until(lambda: "%" in neovim.status, "the percentage is never shown")
    neovim.keys("Gox = 1")
    neovim.until(lambda: neovim.text.endswith("x = 1\n"), "typing is blocked")
    neovim.keys("<Esc>cc" + AREA)
    neovim.wait_ghost()
    indexing = [status["percent"] for status in wire.received("repoformer/status") if status["state"] == "indexing"]
    assert len(indexing) > 1 and indexing == sorted(indexing)


def test_health_help_log_and_doctor(start: Callable[..., Neovim], wire: Wire, tmp_path: Path) -> None:
    program = wire.script(tmp_path / "repoformer-lsp")
    neovim = start("beds.py", f"{{ cmd = {{ 'env', {str(program)!r} }} }}")  # two words, like `uvx repoformer-lsp`
    neovim.wait_ready()
    neovim.api.command("checkhealth repoformer")
    neovim.until(lambda: "Doctor" in neovim.text, "no health report")
    assert "llama.cpp" in neovim.text
    neovim.api.command(f"helptags {PLUGIN / 'doc'}")
    try:
        for topic in ("repoformer", ":Repoformer", "repoformer.setup()"):
            neovim.api.command(f"help {topic}")
            assert neovim.api.current.buffer.name.endswith("repoformer.txt")
    finally:
        (PLUGIN / "doc" / "tags").unlink()
    neovim.api.command("Repoformer log")
    assert "client: Neovim" in neovim.text
    neovim.api.command("Repoformer doctor")
    neovim.until(lambda: "llama.cpp" in neovim.text, "no doctor")


# The user has enabled inline completion for all servers, so Neovim also requests and draws, after the plugin has. The
# server takes a second to start.
EVERYWHERE = "delay = 1000 if vim.lsp.inline_completion then vim.lsp.inline_completion.enable() end"


@pytest.mark.parametrize("before", ["", EVERYWHERE], ids=["ours", "everywhere"])
def test_ghost_text_disappears_with_the_text_right_of_the_cursor(scripted: Callable[..., Neovim], before: str) -> None:
    neovim = scripted(before)
    type_and_see(neovim, "ifoo", "bar")
    neovim.keys("<Left>")
    neovim.until(lambda: not neovim.marks, "ghost text stays although the cursor has moved into the text")
    neovim.keys("<Tab>")
    neovim.until(lambda: neovim.text != "foo\n", "Tab does nothing")
    assert re.fullmatch(r"fo +o\n", neovim.text), "Tab accepts the suggestion although the cursor has moved"
    neovim.keys("<BS><Right>")
    neovim.until(lambda: neovim.ghost == "bar", "the ghost text is not shown again after the cursor moved back")
    neovim.keys("<Tab>")
    neovim.until(lambda: neovim.text == "foobar\n", "not accepted")


CLOSING = "vim.keymap.set('i', '(', '()<C-g>U<Left>')"


def test_brackets_that_are_closed_for_a_person(scripted: Callable[..., Neovim]) -> None:
    neovim = scripted(CLOSING)
    type_and_see(neovim, "ifoo", "(x)")
    neovim.keys("(")
    neovim.until(lambda: neovim.text == "foo()\n", "not typed")
    neovim.until(lambda: not neovim.marks, "ghost text stays that has the closing bracket too")
    neovim.keys("<Tab>")
    neovim.until(lambda: neovim.text != "foo()\n", "Tab does nothing")
    assert re.fullmatch(r"foo\( +\)\n", neovim.text), "the closing bracket is doubled"
    type_and_see(neovim, "<C-u>foo(", "x")
    neovim.keys("<Tab>")
    neovim.until(lambda: neovim.text == "foo(x))\n", "not accepted in mid-line")

    type_and_see(neovim, "<Esc>ccif x", ":\n    y\nend")
    neovim.keys(":")
    neovim.until(lambda: neovim.ghost == "\n    y\nend", "typing through is no longer shown")
    neovim.api.current.buffer.append(["end"])  # the plugin endwise.vim adds this line
    neovim.keys("<Space><BS>")
    neovim.until(lambda: not neovim.marks, "the suggestion would repeat the line that was added below")


def test_an_answer_for_text_that_has_changed(scripted: Callable[..., Neovim]) -> None:
    neovim = scripted(CLOSING)
    neovim.keys("ifoo")
    neovim.until(lambda: neovim.api.exec_lua("return waiting.repoformer ~= nil"), "no request is sent")
    neovim.keys("(")
    neovim.until(lambda: neovim.text == "foo()\n", "not typed")
    neovim.api.exec_lua("answer('repoformer', '(x)')")
    assert not neovim.marks
    neovim.keys("y")
    neovim.until(lambda: neovim.text == "foo(y)\n", "not typed")
    assert not neovim.marks


EARLIER = """
vim.keymap.set('i', '<Tab>', function() vim.api.nvim_put({ '[jump]' }, 'c', false, true) end)
vim.keymap.set('i', '<M-Right>', '<Plug>(word)', { remap = true })
vim.keymap.set('i', '<Plug>(word)', '[word]')
vim.keymap.set('i', '<M-C-Right>', function() return '[line]' end, { expr = true })
vim.cmd('iabbrev teh the')
"""


@pytest.mark.parametrize("again", ["", "require('repoformer').setup{ cmd = { 'true' } }"])
def test_keys_do_what_they_did(scripted: Callable[..., Neovim], again: str) -> None:
    neovim = scripted(EARLIER + again)
    neovim.keys("i1<Tab>2<M-Right>3<M-C-Right>4 teh<C-]>5<Esc>")
    neovim.until(lambda: neovim.text == "1[jump]2[word]3[line]4 the5\n", "the keys do not do what the user has mapped")
    assert "Error" not in neovim.messages()
    type_and_see(neovim, "ccteh", "me")
    neovim.keys("<C-]>")
    neovim.until(lambda: not neovim.marks, "not dismissed")
    assert neovim.text == "teh\n", "an abbreviation was expanded while ghost text was dismissed"


OTHER = """
vim.lsp.config('other', { cmd = scripted('other'), filetypes = { 'python' } })
vim.lsp.enable('other')
vim.lsp.inline_completion.enable()
"""


@pytest.mark.parametrize("nvim", ["neovim"], indirect=True)
def test_another_server_shows_its_own(scripted: Callable[..., Neovim]) -> None:
    neovim = scripted(OTHER)
    # Both servers must be attached before the test types: a server that attaches later gets no request.
    both = "return #vim.lsp.get_clients({ bufnr = 0 }) == 2"
    neovim.until(lambda: neovim.api.exec_lua(both), "the other server is not attached")
    say(neovim, "bar", "other")
    neovim.keys("ifo")
    neovim.until(lambda: neovim.marks, "the other server's ghost text is not shown")
    say(neovim, "", "other")
    neovim.keys("o")
    neovim.until(lambda: neovim.text == "foo\n", "not typed")
    assert neovim.marks and not neovim.ghost, "the other server's ghost text was removed"
    neovim.keys("<BS><M-Right>")
    neovim.until(lambda: neovim.text == "fo\n", "not deleted")
    neovim.keys("<Tab>")
    neovim.until(lambda: neovim.text == "fobar\n", "Tab does not accept the other server's ghost text")


@contextmanager
def in_terminal(nvim: Path, home: dict[str, str], folder: Path, wire: Wire, tmp_path: Path, file: str) -> Iterator[Any]:
    init = tmp_path / "init.lua"
    look = (
        "vim.o.termguicolors = true\nvim.cmd('syntax on | colorscheme habamax')\n"
        "vim.o.number = true\nvim.o.laststatus = 2\n"
        "vim.o.statusline = \" %f%=%{%v:lua.require'repoformer'.statusline()%}  %l:%c \"\n"
    )
    program = wire.script(tmp_path / "repoformer-lsp")
    init.write_text(init_lua(program, "{ settings = { threshold = 0.05 } }") + look)
    with terminal([str(nvim), "-u", str(init), file], env=home, cwd=folder, socket=tmp_path / "tmux") as screen:
        yield screen


def test_on_screen(
    nvim: Path,
    home: dict[str, str],
    folder: Path,
    wire: Wire,
    tmp_path: Path,
    keep: Callable[[Callable[[], Path], str], None],
) -> None:
    install("emacs")  # this script also installs tmux
    with in_terminal(nvim, home, folder, wire, tmp_path, "beds.py") as screen:
        screen.wait(lambda text: "repoformer ✓" in text, "that it is ready")
        screen.press("G", "o")
        screen.type(AREA)
        screen.wait(lambda text: re.search(re.escape(AREA) + r"\w", text), "ghost text")
        screen.wait(lambda text: "repoformer ✓" in text, "that it is ready")
        if nvim.parent.name == "neovim":
            keep(lambda: screen.picture(tmp_path / "ghost.png"), "neovim.png")
        screen.press("Escape")
        screen.type(":Repoformer why")
        screen.press("Enter")
        screen.wait(lambda text: "Why this completion" in text and "shapes.py:" in text, "why")
        if nvim.parent.name == "neovim":
            keep(lambda: screen.picture(tmp_path / "why.png"), "neovim-why.png")


@pytest.fixture
def served(interim: Path, home: dict[str, str], tmp_path: Path) -> Iterator[Package]:
    """Serve what the plugin's installation installs, and set the variables for it in `home`."""
    with package(tmp_path, interim.read_bytes()) as state:
        home.update(state.environment, PATH=f"{put_uv(tmp_path / 'uv').parent}:{home['PATH']}")
        yield state


@pytest.fixture
def plain(nvim: Path, home: dict[str, str], folder: Path, tmp_path: Path) -> Iterator[Callable[..., Neovim]]:
    """Return a function that starts Neovim with the plugin. No server is installed."""
    running: list[pynvim.Nvim] = []

    def plain(options: str = "{}") -> Neovim:
        init = tmp_path / "init.lua"
        setup = f"vim.opt.runtimepath:prepend({str(PLUGIN)!r})\nvim.opt.swapfile = false\n"
        init.write_text(setup + f"require('repoformer').setup({options})\n")
        running.append(attach(nvim, home, folder, init, "beds.py"))
        return Neovim(running[-1])

    yield plain
    for api in running:
        leave(api)


def test_install(plain: Callable[..., Neovim], served: Package, home: dict[str, str]) -> None:
    wheel = served.index.files.pop(f"/files/{WHEEL}")
    vim = plain("{ settings = { patience = 60, threads = 1 } }")
    assert "`:Repoformer install` installs it and a model" in vim.messages()
    vim.api.command("Repoformer install")
    vim.until(lambda: "repoformer-lsp cannot be installed" in vim.messages(), "the installation does not fail")
    assert "Correct `package` of `setup`" in vim.messages()
    assert "Then run `:Repoformer install` again." in vim.messages()

    served.index.files[f"/files/{WHEEL}"] = wheel
    served.index.stall_at[hub_path(served.card)] = 60 << 20
    vim.api.command("Repoformer install")
    vim.until(served.index.stalled.is_set, "the model is not downloaded")
    vim.until(lambda: re.fullmatch(r"repoformer ↓ [5-9]\d%%", vim.status), "no progress in the status line")
    served.index.resume.set()
    vim.until(lambda: "The server is installed. Open a file and type." in vim.messages(), "not installed")
    vim.wait_ready()
    cmd = vim.api.exec_lua("return vim.lsp.config.repoformer.cmd")
    assert Path(cmd[0]).is_relative_to(home["XDG_DATA_HOME"])
    assert list(Path(home["XDG_CACHE_HOME"]).rglob(served.card.file)), "the model is not installed"
    vim.keys("Go" + AREA)
    vim.wait_ghost()


def test_install_without_python(plain: Callable[..., Neovim], home: dict[str, str], tmp_path: Path) -> None:
    home["PATH"] = str(tmp_path / "nothing")
    vim = plain()
    vim.keys(":Repoformer install<CR>")
    vim.until(
        lambda: "There is no Python on this machine. Install Python 3.10" in vim.messages(),
        "the missing Python is not reported",
    )
