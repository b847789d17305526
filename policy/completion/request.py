"""The values of a completion: what a caller asks for, what can be set, what comes back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from indexer.model import Cursor, Hit
from policy.engine.messages import Surprise
from policy.gating.decision import Decision, Policy, SelectionRule
from policy.gating.keep import Estimate, Keep, Suggest, rest_of

Trigger = Literal["automatic", "invoked"]


@dataclass(frozen=True, slots=True)
class CompletionSettings:
    """What the user can set about completions. None: the model's metadata decides.

    `line_tokens` and `block_tokens` limit a generation by its scope (the paper: 50, and 256 for functions; a block here
    has to fit on a screen). `patience` is in seconds. After it a generation ends with the statement it has reached, and
    after twice as long in any case, because the user does not see a completion that comes later. An invoked request
    gets five times as long, and up to `candidates` texts. `ahead`: while idle, generate the completion that would
    follow the last one, and evaluate better chunks than the pinned ones; without it each request that retrieves waits
    for a search. `suggest` says how sure an automatic completion must be to be shown (`policy.gating.keep`).
    """

    policy: Policy = "selective"
    selection: SelectionRule = "threshold"
    threshold: float | None = None
    multiline: bool = True
    chunks: int = 10
    line_tokens: int = 50
    block_tokens: int = 128
    patience: float = 0.6
    candidates: int = 3
    ahead: bool = True
    suggest: Suggest = "balanced"


@dataclass(frozen=True, slots=True)
class Request:
    """A completion wanted at `cursor`. `document` (usually the URI) names the slots of the KV cache.

    A value that is not None overrides the settings, except `threshold`, the calibrated one of the workspace, which a
    threshold set by the user overrides. `ahead` False: do no idle work for this request. `private` says why the text
    must not leave this machine; it is empty where it may. `shift` (log-odds) moves the least probability at which its
    completion is shown, by what was learned of the workspace.
    """

    cursor: Cursor
    document: str
    trigger: Trigger = "automatic"
    policy: Policy | None = None
    multiline: bool | None = None
    threshold: float | None = None
    ahead: bool = True
    shift: float = 0.0
    private: str = ""

    def apply(self, settings: CompletionSettings) -> CompletionSettings:
        """Return `settings` with what this request overrides."""
        if self.policy is not None:
            settings = replace(settings, policy=self.policy)
        if self.multiline is not None:
            settings = replace(settings, multiline=self.multiline)
        if settings.threshold is None:
            settings = replace(settings, threshold=self.threshold)
        return settings

    def after(self, text: str) -> Request:
        """Return the request that would follow if `text` were accepted."""
        cursor = replace(self.cursor, prefix=self.cursor.prefix + text)
        return replace(self, cursor=cursor, trigger="automatic")


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer to a request. An empty `text` has a `reason`.

    `others` are further candidates, best first. `hits` are the chunks in the prompt, with the scores of the search that
    found them, possibly for an earlier request. `timings_ms` has each stage that ran; `model` is the part of them spent
    inside llama.cpp. `stats` counts tokens. Both count this request alone: a reused answer has no stages and `stats`
    says `reused`, a joined one says `joined`. `trimmed` names what did not fit into the prompt: "left" and "right" of
    the cursor, "context" when chunks were cut or left out. `parsed` says whether the language has a grammar by which
    the syntax of the text was checked; brackets and quotes always are. `withheld` says why the text was not sent to the
    server that was to generate. `surprises` are of the tokens of the text, `shortened` says whether the model has
    written more of the first line, `keep` is the estimate that the model's metadata carry, and `estimate` what it says
    here; without it every text is shown.
    """

    text: str
    decision: Decision | None = None
    hits: tuple[Hit, ...] = ()
    timings_ms: dict[str, float] = field(default_factory=dict)
    stats: dict[str, int] = field(default_factory=dict)
    model: str = ""
    reason: str = ""
    trimmed: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    parsed: bool = True
    withheld: str = ""
    surprises: tuple[Surprise, ...] = ()
    shortened: bool = False
    keep: Keep | None = None
    estimate: Estimate | None = None

    def rest(self, text: str) -> Completion:
        """Return this completion once its text was typed up to `text`, its end."""
        typed = len(self.text) - len(text)
        return replace(self, text=text, surprises=rest_of(self.surprises, typed))
