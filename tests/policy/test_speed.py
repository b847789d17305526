"""The choice of a model that is fast enough on this machine, by measured, stored and expected speeds."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from policy.engine.settings import EngineSettings
from policy.engine.speed import Speed, Speeds
from policy.models import card as cards
from policy.models import choice, locate
from policy.prompting.prompt import Budgets
from tests.standin_index import make_card, tiny_content

FAST, SLOW = Speed(1.0, 20.0), Speed(10.0, 80.0)


@pytest.fixture
def speeds(tmp_path: Path) -> Speeds:
    return Speeds(tmp_path / "cache" / "speed.json")


@pytest.fixture
def small_and_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two installed pinned models. The built-in model is installed too."""
    monkeypatch.setattr(cards, "FOLDER", tmp_path / "cards")
    monkeypatch.setattr(locate, "cache_dir", lambda: tmp_path / "models")
    (tmp_path / "models").mkdir()
    found = []
    for name, size in (("small", 200_000), ("large", 400_000)):
        card = make_card(tmp_path / "cards", tiny_content(size), name)
        found.append(tmp_path / "models" / card.file)
        found[-1].write_bytes(tiny_content(size))
    return found[0], found[1]


def test_the_time_for_a_line_decides() -> None:
    assert FAST.line_seconds == pytest.approx(0.244)
    assert FAST.worth_offering and not SLOW.worth_offering
    assert not FAST.too_slow and SLOW.too_slow
    assert FAST.of_size(100, 100) == FAST
    assert FAST.of_size(100, 500).line_seconds > 2 * FAST.line_seconds


@pytest.mark.parametrize(
    ("speed", "too_slow"),
    [
        (FAST, False),
        (SLOW, True),
        # Qwen2.5-Coder 0.5B and 1.5B on two cores beside one and four other busy processes. Without them, a line takes
        # 0.6 and 1.2 s.
        (Speed(24.2, 115.9, others=0.51), False),
        (Speed(24.7, 88.0, others=0.56), False),
        (Speed(46.2, 200.6, others=0.50), True),
        (Speed(64.6, 212.0, others=0.54), True),
    ],
)
def test_a_busy_machine_excludes_only_models_that_are_certainly_too_slow(speed: Speed, too_slow: bool) -> None:
    assert speed.too_slow == too_slow


@pytest.mark.parametrize(("read_ms", "parts"), [(0.1, 1), (7.2, 1), (7.3, 2), (14.4, 2), (14.5, 4), (500.0, 4)])
def test_some_prompts_are_short_on_a_machine_that_reads_slowly(read_ms: float, parts: int) -> None:
    assert Speed(read_ms, 20.0).parts(Budgets(320, 96, 256, 16)) == parts


def test_the_best_model_that_is_fast_enough(speeds: Speeds, small_and_large: tuple[Path, Path]) -> None:
    small, large = small_and_large

    def used() -> Path:
        found = choice.expected_choice(speeds)
        assert found is not None
        return found.model.path

    assert used() == large, "a model without a measured speed is excluded"
    speeds.remember(large, SLOW)
    assert used() == small
    speeds.remember(small, SLOW)
    assert choice.candidates(speeds)[-1].model.path == used(), "the last candidate is not used"
    speeds.remember(large, FAST)
    assert used() == large


def test_a_measurement_on_a_busy_machine_is_not_stored(speeds: Speeds, small_and_large: tuple[Path, Path]) -> None:
    speeds.remember(small_and_large[1], Speed(10.0, 80.0, others=0.8))
    assert speeds.of(small_and_large[1]) is None


def test_a_stored_speed_belongs_to_a_file_and_settings(speeds: Speeds, tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF")
    speeds.remember(model, FAST)
    assert speeds.of(model) == FAST
    assert speeds.of(model, EngineSettings(threads=1)) is None
    os.utime(model, (1, 1))
    assert speeds.of(model) is None


def test_a_slow_speed_expires_after_a_week(speeds: Speeds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick, slow = tmp_path / "quick.gguf", tmp_path / "slow.gguf"
    for model, speed in ((quick, FAST), (slow, SLOW)):
        model.write_bytes(b"GGUF")
        speeds.remember(model, speed)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 8 * 24 * 3600)
    assert speeds.of(quick) == FAST
    assert speeds.of(slow) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"x": 1}'])
def test_a_damaged_store_of_speeds_counts_as_empty(tmp_path: Path, content: str) -> None:
    file = tmp_path / "speed.json"
    file.write_text(content)
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF")
    assert Speeds(file).of(model) is None
    Speeds(file).remember(model, FAST)
    assert Speeds(file).of(model) == FAST


def test_the_next_better_model(speeds: Speeds, small_and_large: tuple[Path, Path]) -> None:
    small, large = small_and_large
    assert choice.find_better(small, FAST) is None, "an installed model is offered"
    large.unlink()
    found = choice.find_better(small, FAST)
    assert found is not None and found.card.name == "large"
    assert found.speed == FAST.of_size(small.stat().st_size, found.card.size)
    assert "model pull large" in choice.describe(small, FAST)
    assert "too slow for typing" in choice.describe(small, SLOW)
    assert "large" not in choice.describe(small, Speed(1.0, 1.0, others=0.9))


def test_a_model_too_large_for_memory_is_not_offered(
    small_and_large: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = small_and_large
    large.unlink()
    monkeypatch.setattr(choice, "available_memory", lambda: 400_000)
    assert choice.find_better(small, FAST) is None
