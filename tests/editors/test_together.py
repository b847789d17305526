"""Two editors on one workspace at once, and a workspace that takes long to index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.editors.conftest import install
from tests.editors.test_emacs import batch, lisp, packages  # noqa: F401  # fixtures
from tests.editors.test_neovim import Neovim, start  # noqa: F401  # a fixture
from tests.editors.wire import Wire
from tests.editors.workspace import AREA

FILES = 4000


@pytest.fixture
def nvim() -> Path:
    return install("neovim") / "nvim"


def test_two_editors_on_one_workspace(
    start: Callable[..., Neovim],  # noqa: F811
    batch: Callable[..., str],  # noqa: F811
    folder: Path,
    model: Path,
    tmp_path: Path,
) -> None:
    neovim = start("beds.py")
    neovim.wait_ready()
    batch(
        f"""
(test-open "beds.py")
(test-type {lisp(AREA)})
(test-equal t (string-prefix-p "width" (test-ghost)) "ghost text in Emacs")
(test-command #'repoformer-accept)
""",
        wire=Wire(tmp_path / "emacs.jsonl", model),
    )
    neovim.keys("Go" + AREA)
    neovim.wait_ghost("width")
    neovim.keys("<Tab><Esc>")
    neovim.until(lambda: AREA + "width" in neovim.text, "not accepted")


def test_a_workspace_that_takes_long_to_index(start: Callable[..., Neovim], folder: Path, wire: Wire) -> None:  # noqa: F811
    function = "".join(f"def part_{n}(value):\n    return value + {n}\n\n\n" for n in range(40))
    many = folder / "many"
    many.mkdir()
    for n in range(FILES):
        (many / f"module_{n}.py").write_text(f"NUMBER = {n}\n\n\n{function}")
    neovim = start("beds.py")
    line = "return require('repoformer').statusline()"
    neovim.until(lambda: "%" in neovim.api.exec_lua(line), "the percentage is never shown")
    neovim.keys("Gox = 1")
    neovim.until(lambda: neovim.text.endswith("x = 1\n"), "typing is blocked", 5)
    neovim.keys("<Esc>ccx<BS>" + AREA)
    neovim.wait_ghost("width")
    indexing = [status["percent"] for status in wire.received("repoformer/status") if status["state"] == "indexing"]
    assert len(indexing) > 1 and indexing == sorted(indexing)
