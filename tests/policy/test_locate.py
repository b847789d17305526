"""Which model file is used: the one in the settings, the included one, or one in the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from policy.errors import ModelMissing
from policy.models import locate
from policy.models.card import all_cards


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Simulate a package without a built-in model.
    monkeypatch.setattr(locate, "__file__", str(tmp_path / "policy" / "models" / "locate.py"))
    monkeypatch.setattr(locate, "cache_dir", lambda: tmp_path / "cache" / "models")
    return tmp_path / "cache" / "models"


def test_a_setting_comes_first(tmp_path: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "cached.gguf").touch()
    wanted = tmp_path / "mine.gguf"
    wanted.touch()
    assert locate.resolve(str(wanted)) == locate.ModelFile(wanted, "setting")
    assert locate.resolve() == locate.ModelFile(cache / "cached.gguf", "cache")


def test_the_shipped_model_comes_before_the_cache(tmp_path: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "cached.gguf").touch()
    shipped = tmp_path / "policy" / "model" / "ours.gguf"
    shipped.parent.mkdir(parents=True)
    shipped.touch()
    assert locate.resolve() == locate.ModelFile(shipped, "shipped")
    assert [model.source for model in locate.installed()] == ["shipped", "cache"]


def test_no_model_at_all() -> None:
    with pytest.raises(ModelMissing, match="repoformer-lsp model pull"):
        locate.resolve()


def test_a_setting_that_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"no model at .*absent.gguf. Correct the setting"):
        locate.resolve(tmp_path / "absent.gguf")


def test_a_model_of_the_catalog_is_found_by_its_name(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = all_cards()[0]
    with pytest.raises(ModelMissing, match=f"{card.name} is not downloaded. Run `repoformer-lsp model pull"):
        locate.resolve(card.name)
    monkeypatch.setattr(locate, "of_file", lambda path: card if path.is_file() else None)
    cache.mkdir(parents=True)
    (cache / card.file).touch()
    assert locate.resolve(card.name) == locate.ModelFile(cache / card.file, "setting")


def test_imported_models_come_before_pulled_ones_and_shards_count_once(cache: Path) -> None:
    (cache / "a--b").mkdir(parents=True)
    for name in ("own.gguf", "a--b/c-00001-of-00002.gguf", "a--b/c-00002-of-00002.gguf"):
        (cache / name).touch()
    found = [model.path.relative_to(cache).as_posix() for model in locate.installed() if model.source == "cache"]
    assert found == ["own.gguf", "a--b/c-00001-of-00002.gguf"]
