"""A model that does not fit into memory is refused before it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from policy.engine import memory
from policy.errors import ModelTooLarge


def test_a_model_larger_than_free_memory(tmp_path: Path) -> None:
    model = tmp_path / "large.gguf"
    model.write_bytes(b"\0" * 3_000)
    memory.check_fits(model, available=3_000)
    with pytest.raises(
        ModelTooLarge, match=r"large.gguf takes 0.0 GB of memory, and 0.0 GB are free. Choose a smaller"
    ):
        memory.check_fits(model, available=2_999)


def test_all_parts_of_a_model_count(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / f"m-{number:05}-of-00003.gguf").write_bytes(b"\0" * number)
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(b"\0" * 100)
    assert memory.size_of(tmp_path / "m-00001-of-00003.gguf") == 6


def test_a_container_has_the_memory_of_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, none = tmp_path / "memory.max", tmp_path / "memory.limit_in_bytes"
    monkeypatch.setattr(memory, "_LIMITS", (limit, none))
    limit.write_text("max\n")
    assert memory.available_memory() > 1_000
    limit.write_text("1000\n")
    assert memory.available_memory() == 1_000
