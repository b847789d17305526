"""Two editors that have the same workspace open at the same time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.editors.editors import install
from tests.editors.test_emacs import batch, lisp, packages  # noqa: F401  # fixtures
from tests.editors.test_neovim import Neovim, start  # noqa: F401  # a fixture
from tests.editors.wire import Wire
from tests.editors.workspace import AREA


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
(test-ghost)
(test-command #'repoformer-accept)
""",
        wire=Wire(tmp_path / "emacs.jsonl", model),
    )
    neovim.keys("Go" + AREA)
    ghost = neovim.wait_ghost()
    neovim.keys("<Tab><Esc>")
    neovim.until(lambda: AREA + ghost in neovim.text, "not accepted")
