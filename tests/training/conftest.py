"""Shared fixtures: a corpus, a tiny base, an adapted model. Without the `train` extra, no test is collected."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

collect_ignore_glob = [] if find_spec("torch") and find_spec("transformers") else ["test_*.py"]


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with three packages as wheels, the tiny base, the corpus and the blanks."""
    import torch

    from policy.training import blanks, corpus
    from tests.training.tiny import LIST, tiny_base, wheel

    torch.set_num_threads(1)  # the tiny model is too small for several threads
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
    """The tiny model after adaptation."""
    from tests.training.tiny import run_adapt

    return run_adapt(work, "adapt", 24)
