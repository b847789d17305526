"""Fixtures of the training tests: a corpus, a tiny base model, and the base after adaptation.

Without the `train` extra, pytest collects no test of this folder.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

collect_ignore_glob = [] if find_spec("torch") and find_spec("transformers") else ["test_*.py"]


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with the wheels of three packages, and with the tiny base model, the corpus and the blanks."""
    import torch

    from policy.training import blanks, corpus
    from tests.training.tiny import LIST, tiny_base, wheel

    torch.set_num_threads(1)  # for a tiny model, several threads are slower than one
    folder = tmp_path_factory.mktemp("train")
    rows = LIST
    for number, split in enumerate(("train", "valid", "test")):
        name = f"tiny{split}"
        rows += f"{split},pypi,{name},1.0,MIT\n"
        wheel(folder / "downloads" / f"pypi~{name}" / f"{name}-1.0-py3-none-any.whl", name, number)
    (folder / "list.csv").write_text(rows)
    tiny_base(folder / "base")
    corpus.run(folder / "corpus", folder / "downloads", folder / "list.csv")
    blanks.run(folder / "blanks", folder / "corpus", per_repository=60)
    return folder


@pytest.fixture(scope="session")
def adapted(work: Path) -> Path:
    """The folder of the tiny model after 24 steps of adaptation."""
    from tests.training.tiny import run_adapt

    return run_adapt(work, "adapt", 24)
