"""What the rings of tests share: one real model for all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from policy import models


@pytest.fixture(scope="session")
def model() -> Path:
    """The default model, fetched into the user's cache the first time."""
    return models.place_interim().path
