"""Record ghost text in a real Neovim as an animated picture: `python -m tools.capture [--model GGUF] [--out FILE]`.

Neovim runs in a terminal, in a copy of `examples/workspace`, with the real server and a real model. The script types at
a constant speed. Each change of the screen becomes a frame, which is shown for the same time as on the screen. The
script needs Pillow, and tmux, Chromium and Neovim 0.12, which the scripts in `tests/editors/install` install.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from policy.models import locate
from tests.editors.editors import install
from tests.editors.terminal import Terminal, terminal

ROOT = Path(__file__).resolve().parent.parent
FILE, LINE, TYPED = "lending/desk.py", 57, "return late_fee("
# Before the recording, the script removes this text from the line.
CUT = TYPED + "returned, self.members[loan.member_number], today)"
RATE = 0.16  # the seconds between two keys
LAST = 2.5  # the seconds for which the last frame is shown
INIT = """
vim.opt.runtimepath:prepend({plugin!r})
vim.o.swapfile, vim.o.termguicolors, vim.o.number, vim.o.laststatus = false, true, true, 2
vim.cmd('syntax on | colorscheme habamax')
vim.o.statusline = " %f%=%{{%v:lua.require'repoformer'.statusline()%}}  %l:%c "
require('repoformer').setup({{ cmd = {command} }})
"""


class Recorder:
    """Records the screen as frames. A frame is an HTML page of the screen, and the seconds for which it was shown."""

    def __init__(self, screen: Terminal, folder: Path) -> None:
        self.frames: list[tuple[Path, float]] = []
        self._screen, self._folder = screen, folder
        self._shown, self._since = "", time.monotonic()

    def look(self, seconds: float) -> None:
        """Watch the screen for `seconds`, and record a frame at each change."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            if (shown := self._screen.screen()) != self._shown:
                if self.frames:
                    self.frames[-1] = (self.frames[-1][0], now - self._since)
                page = self._screen.page(self._folder / f"{len(self.frames):03}.html")
                self.frames.append((page, 0.0))
                self._shown, self._since = shown, now
            time.sleep(0.03)

    def save(self, target: Path) -> None:
        """Draw the frames, and write them to `target` as a GIF."""
        pictures = [Image.open(self._screen.draw(page)).convert("RGB") for page, _ in self.frames]
        images = [picture.quantize(48, dither=Image.Dither.NONE) for picture in pictures]
        times = [round(1000 * max(seconds, 0.05)) for _, seconds in self.frames[:-1]] + [round(1000 * LAST)]
        images[0].save(target, save_all=True, append_images=images[1:], duration=times, loop=0, optimize=True)


def main() -> int:
    """Record Neovim once, and write the picture."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", type=Path, default=locate.resolve().path)
    options.add_argument("--out", type=Path, default=ROOT / "docs/editors/neovim.gif")
    given = options.parse_args()
    install("emacs")  # the install script of Emacs also installs tmux
    nvim = install("neovim") / "nvim"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workspace = shutil.copytree(ROOT / "examples/workspace", folder / "lending-library")
        source = workspace / FILE
        lines = source.read_text("utf-8").split("\n")
        lines[LINE - 1] = lines[LINE - 1].replace(CUT, "")
        source.write_text("\n".join(lines), "utf-8")
        server = f"{{ {str(Path(sys.executable).with_name('repoformer-lsp'))!r}, '--model', {str(given.model)!r} }}"
        (folder / "init.lua").write_text(INIT.format(plugin=str(ROOT / "editors/neovim"), command=server))
        command = [str(nvim), "-u", str(folder / "init.lua"), FILE]
        with terminal(command, env=dict(os.environ), cwd=workspace, socket=folder / "tmux") as screen:
            screen.wait(lambda text: "repoformer ✓" in text, "that the server is ready")
            screen.type(f"{LINE}Gzz")
            screen.type("A")
            time.sleep(1.0)
            recorder = Recorder(screen, folder)
            recorder.look(0.5)
            for key in TYPED:
                screen.type(key)
                recorder.look(RATE)
            while not re.search(re.escape(TYPED) + r"\w", screen.screen()):
                recorder.look(0.1)
            recorder.look(1.5)
            screen.press("Tab")
            recorder.look(1.0)
            recorder.save(given.out)
    print(f"{given.out}: {len(recorder.frames)} frames, {given.out.stat().st_size / 1000:.0f} KB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
