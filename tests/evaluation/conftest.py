"""A fixture of the evaluation tests. This module also makes their folder importable."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def workspace() -> Path:
    """The folder `examples/workspace`, whose files import each other."""
    return Path(__file__).parents[2] / "examples" / "workspace"
