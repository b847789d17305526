"""The setting `model: "auto"`: choose among the installed models, and find a better one that is not installed.

The candidates are the pinned models that were downloaded, the largest first, then the model that is part of the
package, which needs no download. A candidate that is known to be too slow on this machine (`policy.engine.speed`) is
skipped. A larger model is offered only if it fits into memory. This module neither loads a model nor measures a speed.
A caller with an engine measures the speed, stores it in `Speeds`, and calls this module again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from policy.engine.memory import available_memory, size_of
from policy.engine.settings import EngineSettings
from policy.engine.speed import Speed, Speeds
from policy.models.card import Card, all_cards
from policy.models.locate import ModelFile, installed

_MEMORY_FACTOR = 1.3  # the memory that a model needs (with KV cache and computation), divided by the size of its file


@dataclass(frozen=True, slots=True)
class Candidate:
    """An installed model, and its speed, or None if the speed is not known."""

    model: ModelFile
    speed: Speed | None

    @property
    def fast_enough(self) -> bool:
        """Whether the model is fast enough on this machine, or its speed is not known."""
        return self.speed is None or not self.speed.too_slow


@dataclass(frozen=True, slots=True)
class Better:
    """A pinned model that is not installed, and its expected speed on this machine."""

    card: Card
    speed: Speed


def candidates(speeds: Speeds, settings: EngineSettings | None = None) -> list[Candidate]:
    """Return the installed models that may be used, the best first.

    These are the pinned models that were downloaded, and the model in the package. If there are none, the only
    candidate is the first of the other installed models.
    """
    found = installed()
    known = [model for model in found if model.source != "cache"] or found[:1]
    return [Candidate(model, speeds.of(model.path, settings)) for model in known]


def expected_choice(speeds: Speeds) -> Candidate | None:
    """Return the candidate to use: the first that is not known to be too slow, else the last.

    Return None if no model is installed.
    """
    found = candidates(speeds)
    return next((each for each in found if each.fast_enough), found[-1] if found else None)


def next_larger(model: Path) -> Card | None:
    """Return the smallest pinned model that is larger than `model` and not installed.

    Return None if there is no such model, or if it does not fit into the available memory.
    """
    size = size_of(model)
    have = {each.path.name for each in installed()}
    card = next((card for card in all_cards() if card.size > size and card.file not in have), None)
    return card if card is not None and card.size * _MEMORY_FACTOR < available_memory() else None


def find_better(model: Path, speed: Speed) -> Better | None:
    """Return the next larger model, with the speed that follows from the measured `speed` of `model`, or None.

    The caller decides whether that speed is sufficient.
    """
    card = next_larger(model)
    return Better(card, speed.of_size(size_of(model), card.size)) if card is not None else None


def describe(model: Path, speed: Speed) -> str:
    """Return the times for a line with this model and with the next larger one, as text for the log and `doctor`."""
    text = f"a line of 12 tokens takes {speed.line_seconds:.2f} s"
    if speed.undisturbed and (found := find_better(model, speed)):
        advice = (
            f"`repoformer-lsp model pull {found.card.name}`"
            if found.speed.worth_offering
            else "probably too slow for typing"
        )
        text += f"; {found.card.title} would take about {found.speed.line_seconds:.2f} s ({advice})"
    return text
