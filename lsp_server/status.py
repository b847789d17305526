"""One glance: what the server is doing, as editors show it in a status bar.

A pure function of a few facts, so that the state never depends on the order in which things happened.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from policy.engine.supervisor import EngineState

ServerState = Literal["starting", "indexing", "ready", "generating", "off", "error"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the state follows from.

    `engine` is what was last heard of it, and `problem` what was last wrong with it or with the model. `indexed` is the
    share of the workspace that is indexed, None before it began. `resting`: nothing is completed unless it is asked
    for, to save power. `replaced` says why the local model writes in place of another.
    """

    enabled: bool = True
    problem: str = ""
    model: str = ""
    engine: EngineState = "stopped"
    indexed: float | None = None
    generating: int = 0
    policy: str = "selective"
    resting: bool = False
    replaced: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """Parameters of `repoformer/status`. `percent` is there while indexing."""

    state: ServerState
    message: str
    model: str
    policy: str
    percent: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As it goes over the wire."""
        return asdict(self)


def status_of(facts: Facts) -> Status:
    """What to show for `facts`; what a person can act on comes first."""

    def status(state: ServerState, message: str, percent: int | None = None) -> Status:
        return Status(state, message, facts.model, facts.policy, percent)

    if not facts.enabled:
        return status("off", "switched off in the settings")
    if facts.problem or facts.engine == "failed":
        return status("error", facts.problem or "the model could not be loaded")
    if facts.engine != "ready":
        return status("starting", "loading the model")
    if facts.generating:
        return status("generating", "completing")
    if facts.indexed is not None and facts.indexed < 1:
        percent = int(facts.indexed * 100)
        return status("indexing", f"indexing the workspace, {percent}%", percent)
    if facts.replaced:
        return status("ready", facts.replaced)
    return status("ready", "on battery: completes where it is asked to" if facts.resting else "ready")
