"""The setting `model: "auto"`: which of the installed models is used, and which of the others would be better.

Candidates are the pinned models that were pulled, the largest first, then the model that ships, which needs no
download and always will do. A candidate is passed over where it is known to be too slow for this machine
(`policy.engine.speed`) or larger than its memory. Nothing is measured here: a caller that has an engine does that, and
asks again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from policy.engine.memory import available_memory, size_of
from policy.engine.settings import EngineSettings
from policy.engine.speed import Speed, Speeds
from policy.models.card import Card, all_cards
from policy.models.locate import ModelFile, installed

_ROOM = 1.3  # bytes of memory a byte of weights: the cache and the computation need some, too


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that is installed, and its speed where that was measured."""

    model: ModelFile
    speed: Speed | None

    @property
    def fits(self) -> bool:
        """Whether it may be used, as far as is known."""
        return self.speed is None or self.speed.will_do


@dataclass(frozen=True, slots=True)
class Better:
    """A pinned model that is not installed, and the speed to expect of it on this machine."""

    card: Card
    speed: Speed


def candidates(speeds: Speeds, settings: EngineSettings | None = None) -> list[Candidate]:
    """What is installed, the best first: models that were pulled, and the one that ships; else the first other."""
    found = installed()
    known = [model for model in found if model.source != "cache"] or found[:1]
    return [Candidate(model, speeds.of(model.path, settings)) for model in known]


def used(speeds: Speeds) -> Candidate | None:
    """The candidate to use: the first that fits, else the last; None where nothing is installed."""
    found = candidates(speeds)
    return next((each for each in found if each.fits), found[-1] if found else None)


def next_larger(model: Path) -> Card | None:
    """The smallest pinned model that is larger than `model` and not installed, where memory has room for it."""
    size = size_of(model)
    have = {each.path.name for each in installed()}
    card = next((card for card in all_cards() if card.size > size and card.file not in have), None)
    return card if card is not None and card.size * _ROOM < available_memory() else None


def better(model: Path, speed: Speed) -> Better | None:
    """The next larger model, with the speed to expect by that of `model`: the caller says whether it will do."""
    card = next_larger(model)
    return Better(card, speed.of_size(size_of(model), card.size)) if card is not None else None


def described(model: Path, speed: Speed) -> str:
    """One sentence for the log and for `doctor`: what a line takes, and what the next better model would take."""
    text = f"a line of 12 tokens takes {speed.line_seconds:.2f} s"
    if speed.undisturbed and (found := better(model, speed)):
        advice = f"`repoformer-lsp model pull {found.card.name}`" if found.speed.will_do else "too slow for typing"
        text += f"; {found.card.title} would take about {found.speed.line_seconds:.2f} s ({advice})"
    return text
