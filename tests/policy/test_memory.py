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
        ModelTooLarge, match=r"large.gguf needs 0.0 GB of memory, and 0.0 GB are free. Choose a smaller"
    ):
        memory.check_fits(model, available=2_999)


def test_all_parts_of_a_model_count(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / f"m-{number:05}-of-00003.gguf").write_bytes(b"\0" * number)
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(b"\0" * 100)
    assert memory.size_of(tmp_path / "m-00001-of-00003.gguf") == 6


@pytest.mark.parametrize("where", ["", "user.slice", "user.slice/editor.scope"])
def test_a_container_has_what_is_left_of_what_it_may_use(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("4:cpu:/\n0::/user.slice/editor.scope\n")
    monkeypatch.setattr(memory, "_MEMBERSHIP", membership)
    monkeypatch.setattr(memory, "_GROUPS", ((tmp_path, "", "memory.max", "memory.current", "inactive_file"),))
    group = tmp_path / where
    group.mkdir(parents=True, exist_ok=True)
    for limit, used, cached, left in ((1_000, 900, 0, 100), (1_000, 900, 500, 600), (1_000, 1_200, 0, 0)):
        (group / "memory.max").write_text("max\n")
        assert memory.available_memory() > 1_000
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text(f"{used}\n")
        (group / "memory.stat").write_text(f"anon 7\ninactive_file {cached}\n")
        assert memory.available_memory() == left
