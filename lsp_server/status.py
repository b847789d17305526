"""The status of the server, which editors show in a status bar.

The status is a pure function of a few facts, so that it does not depend on the order of events.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from policy.engine.supervisor import EngineState

ServerState = Literal["starting", "indexing", "ready", "generating", "off", "error"]


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts that determine the status.

    `engine` is the last known state of the engine, and `problem` is the last problem of the engine or the model.
    `indexed` is the share of the workspace that is indexed, from 0 to 1, or None before indexing starts. `generating`
    is the number of running requests. `resting` says whether completions are made only on request, to save power.
    `replaced` says why the local model generates instead of the configured generator, or is empty.
    """

    enabled: bool = True
    problem: str = ""
    model: str = ""
    engine: EngineState = "stopped"
    indexed: float | None = None
    generating: int = 0
    policy: str = "selective"
    suggest: str = "balanced"
    resting: bool = False
    replaced: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """The parameters of the notification `repoformer/status`. `percent` is None unless the state is "indexing"."""

    state: ServerState
    message: str
    model: str
    policy: str
    suggest: str
    percent: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the parameters as JSON values."""
        return asdict(self)


def status_of(facts: Facts) -> Status:
    """Return the status for `facts`. A problem that the user can solve comes first."""

    def status(state: ServerState, message: str, percent: int | None = None) -> Status:
        return Status(state, message, facts.model, facts.policy, facts.suggest, percent)

    if not facts.enabled:
        return status("off", "disabled in the settings")
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
    return status("ready", "on battery: completes only on request" if facts.resting else "ready")
