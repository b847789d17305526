"""Evaluation tests share `marked.py`, which lies beside them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def workspace() -> Path:
    """The sample workspace of the project: small, and its files know each other."""
    return Path(__file__).parents[2] / "examples" / "workspace"
