"""`model: "auto"`: which model the server chooses if some files are too large, too slow, or no models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lsp_server.choosing import choose
from policy.engine.settings import EngineSettings
from policy.engine.speed import Speed, Speeds
from policy.errors import ModelInvalid, ModelTooLarge, Preempted, RepoformerError
from policy.models import card as cards
from policy.models import locate
from policy.models.locate import ModelFile
from policy.prompting.prompt import Budgets
from tests.standin_index import make_card, tiny_content

FAST, SLOW, READS_SLOWLY = Speed(1.0, 20.0), Speed(10.0, 80.0), Speed(12.0, 20.0)
BUSY, BUSY_AND_SLOW = Speed(27.0, 100.0, others=0.55), Speed(60.0, 220.0, others=0.5)
BUDGETS = Budgets(320, 96, 256)
Outcome = Speed | RepoformerError


class StandinSupervisor:
    """A supervisor without an engine.

    `outcome` is the measured speed, or an error. `measure` raises `Preempted`, and `engine` raises every other error.
    """

    def __init__(self, model: Path, outcome: Outcome) -> None:
        self.model = model
        self.closed = False
        self.parts = 1
        self._outcome = outcome

    async def engine(self) -> StandinSupervisor:
        if isinstance(self._outcome, RepoformerError) and not isinstance(self._outcome, Preempted):
            raise self._outcome
        return self

    async def measure(self) -> Speed:
        if isinstance(self._outcome, RepoformerError):
            raise self._outcome
        return self._outcome

    async def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("large", "small", "used", "told"),
    [
        (FAST, FAST, "large.gguf", ""),
        (SLOW, FAST, "small.gguf", ""),
        (SLOW, SLOW, "ours.gguf", ""),
        (BUSY, FAST, "large.gguf", ""),
        (BUSY_AND_SLOW, FAST, "small.gguf", ""),
        (BUSY_AND_SLOW, BUSY, "small.gguf", ""),
        (READS_SLOWLY, FAST, "large.gguf", ""),
        (Preempted("a request came"), FAST, "large.gguf", ""),
        (ModelTooLarge("large.gguf takes 9 GB."), FAST, "small.gguf", "large.gguf takes 9 GB. A smaller model is used"),
        (ModelInvalid("It is damaged."), SLOW, "ours.gguf", "It is damaged. A smaller model is used"),
    ],
)
async def test_the_best_model_that_this_machine_can_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: Outcome, small: Outcome, used: str, told: str
) -> None:
    monkeypatch.setattr(cards, "FOLDER", tmp_path / "cards")
    monkeypatch.setattr(locate, "__file__", str(tmp_path / "policy" / "models" / "locate.py"))
    monkeypatch.setattr(locate, "cache_dir", lambda: tmp_path / "cache")
    shipped = tmp_path / "policy" / "model" / "ours.gguf"
    outcomes: dict[str, Outcome] = {"large.gguf": large, "small.gguf": small, shipped.name: SLOW}
    for folder in (shipped.parent, tmp_path / "cache"):
        folder.mkdir(parents=True)
    shipped.write_bytes(tiny_content(0))
    for name, size in (("small", 200_000), ("large", 400_000)):
        card = make_card(tmp_path / "cards", tiny_content(size), name)
        (tmp_path / "cache" / card.file).write_bytes(tiny_content(size))
    made: list[StandinSupervisor] = []

    async def make(model: ModelFile) -> StandinSupervisor:
        made.append(StandinSupervisor(model.path, outcomes[model.path.name]))
        speed = speeds.of(model.path, EngineSettings())
        made[-1].parts = speed.parts(BUDGETS) if speed else 1
        return made[-1]

    said: list[str] = []
    for again in (False, True):  # the second choice uses the stored speeds and must be the same
        made.clear()
        speeds = Speeds(tmp_path / "speed.json")
        chosen: Any = await choose(make, speeds, EngineSettings(), said.append)  # type: ignore[arg-type]
        assert chosen.model.name == used
        assert [supervisor for supervisor in made if not supervisor.closed] == [chosen]
        assert chosen.parts == (2 if large is READS_SLOWLY else 1)
        if again and large is SLOW:
            assert "large.gguf" not in [supervisor.model.name for supervisor in made]
    assert all(line.startswith(told) for line in said) and bool(said) == bool(told)
