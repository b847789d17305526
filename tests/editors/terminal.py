"""Run an editor in a terminal: tmux types keys and reads the screen, and Chromium draws pictures of the screen."""

from __future__ import annotations

import html
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.editors.workspace import SECONDS

COLUMNS, ROWS = 96, 22
_PALETTE = (
    *("#1d1f21", "#cc6666", "#b5bd68", "#f0c674", "#81a2be", "#b294bb", "#8abeb7", "#c5c8c6"),
    *("#7f848e", "#d54e53", "#b9ca4a", "#e7c547", "#7aa6da", "#c397d8", "#70c0b1", "#eaeaea"),
)
_SGR = re.compile(r"\x1b\[([\d;:]*)m")


@dataclass(frozen=True)
class Terminal:
    """A running program in a terminal."""

    socket: str

    def type(self, text: str) -> None:
        """Type `text`. The names of keys, such as Enter, are typed as letters."""
        self._tmux("send-keys", "-l", text)

    def press(self, *keys: str) -> None:
        """Press keys. Their names are those of tmux, such as Enter, Tab, M-Right and C-x."""
        self._tmux("send-keys", *keys)

    def screen(self) -> str:
        """Return the text on the screen."""
        return self._tmux("capture-pane", "-p")

    def wait(self, shows: Callable[[str], object], what: str) -> str:
        """Wait until `shows` returns true for the text on the screen, and return that text.

        `what` describes the awaited text in the error message.
        """
        end = time.monotonic() + SECONDS
        while not shows(screen := self.screen()):
            assert time.monotonic() < end, f"the screen never showed {what}:\n{screen}"
            time.sleep(0.1)
        return screen

    def picture(self, path: Path) -> Path:
        """Draw the screen as a PNG file next to `path`, and return the file."""
        return self.draw(self.page(path.with_suffix(".html")))

    def page(self, path: Path) -> Path:
        """Write the screen to `path` as an HTML page, which `draw` accepts."""
        path.write_text(_page(self._tmux("capture-pane", "-p", "-e", "-N")), "utf-8")
        return path

    @staticmethod
    def draw(page: Path) -> Path:
        """Draw an HTML page as a PNG file in the same folder, and return the file."""
        path = page.with_suffix(".png")
        size = f"--window-size={COLUMNS * 9 + 32},{ROWS * 20 + 32}"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-sync"]
        quiet = ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={path}.profile"]
        shot = [f"--screenshot={path}", page.as_uri()]
        chromium = shutil.which("chromium") or "chromium"
        subprocess.run([chromium, *flags, *quiet, size, *shot], check=True, capture_output=True, timeout=120)
        return path

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", self.socket, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


@contextmanager
def terminal(command: list[str], *, env: Mapping[str, str], cwd: Path, socket: Path) -> Iterator[Terminal]:
    """Run a program in a terminal of tmux until the end of the `with` block. tmux listens on `socket`."""
    configuration = socket.with_suffix(".conf")
    configuration.write_text(
        'set -g default-terminal "tmux-256color"\nset -ag terminal-overrides ",*:Tc"\nset -g status off\n'
        "set -sg escape-time 20\n"
    )
    tmux = ["tmux", "-S", str(socket), "-f", str(configuration)]
    size = ["-x", str(COLUMNS), "-y", str(ROWS)]
    environment = {**env, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    subprocess.run([*tmux, "-u", "new-session", "-d", *size, shlex.join(command)], check=True, env=environment, cwd=cwd)
    try:
        yield Terminal(str(socket))
    finally:
        subprocess.run([*tmux, "kill-server"], check=False, env=environment)


def _page(screen: str) -> str:
    style: dict[str, str] = {}  # CSS properties; each line starts with those at the end of the line above
    rows = "\n".join(_spans(line, style) for line in screen.splitlines()[:ROWS])
    background = re.search('background:([^;"]+)', rows)  # the page's margin gets the program's background color
    return (
        "<meta charset=utf-8><style>"
        f"body{{margin:0;background:{background[1] if background else _PALETTE[0]}}}"
        "pre{margin:16px;color:#c5c8c6;font:15px/20px 'DejaVu Sans Mono',monospace}"
        "span{display:inline-block;height:20px;vertical-align:top}"
        f"</style><pre>{rows}</pre>"
    )


def _spans(line: str, style: dict[str, str]) -> str:
    """Return a line with escape sequences as HTML.

    `style` has the CSS properties at the start of the line. This function changes it to those at the end.
    """
    parts = _SGR.split(line)
    out: list[str] = []
    for codes, text in zip(["", *parts[1::2]], parts[0::2], strict=True):
        if codes or out:
            _apply(style, [int(code or 0) for code in re.split("[;:]", codes)])
        shown = dict(style)
        if shown.pop("reverse", ""):
            shown["color"], shown["background"] = shown.get("background", "#1d1f21"), shown.get("color", "#c5c8c6")
        css = ";".join(f"{name}:{value}" for name, value in shown.items())
        out.append(f'<span style="{css}">{html.escape(text)}</span>' if css else html.escape(text))
    return "".join(out)


def _apply(style: dict[str, str], codes: list[int]) -> None:
    flags = {1: ("font-weight", "bold"), 2: ("opacity", ".7"), 3: ("font-style", "italic"), 7: ("reverse", "1")}
    off = {22: ("font-weight", "opacity"), 23: ("font-style",), 27: ("reverse",), 39: ("color",), 49: ("background",)}
    while codes:
        code = codes.pop(0)
        if code == 0:
            style.clear()
        elif code in flags:
            style.update([flags[code]])
        elif code in off:
            for name in off[code]:
                style.pop(name, None)
        elif code in (38, 48):
            style["color" if code == 38 else "background"] = _extended(codes)
        elif 30 <= code <= 37 or 90 <= code <= 97:
            style["color"] = _PALETTE[code - 30 if code < 90 else code - 82]
        elif 40 <= code <= 47 or 100 <= code <= 107:
            style["background"] = _PALETTE[code - 40 if code < 100 else code - 92]


def _extended(codes: list[int]) -> str:
    if codes.pop(0) == 2:
        return f"rgb({codes.pop(0)},{codes.pop(0)},{codes.pop(0)})"
    number = codes.pop(0)
    if number < 16:
        return _PALETTE[number]
    if number >= 232:
        return "rgb({0},{0},{0})".format(8 + 10 * (number - 232))
    levels = (0, 95, 135, 175, 215, 255)
    number -= 16
    return f"rgb({levels[number // 36]},{levels[number // 6 % 6]},{levels[number % 6]})"
