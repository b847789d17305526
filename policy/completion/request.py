"""The values of a completion: the request, the settings, the answer."""

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
    """The user's settings for completions. None means that the model's metadata decide.

    `line_tokens` and `block_tokens` limit a generation by its scope (the paper uses 50, and 256 for functions; here a
    block has to fit on a screen). `patience` is in seconds. When it is over, a generation ends after the current
    statement, and after twice that time in any case, because a later completion is not seen. An invoked request gets
    five times as long, and up to `candidates` texts. With `ahead`, idle time is used to generate the next completion
    and to evaluate better chunks than the pinned ones. Without it, each request that retrieves waits for a search.
    `suggest` says how probable it must be that an automatic completion is kept (`policy.gating.keep`).
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
    """A request for a completion at `cursor`.

    `document` (usually the URI) is part of the names of its slots in the KV cache. A value that is not None overrides
    the settings, except `threshold`: it is the calibrated threshold of the workspace, and a threshold set by the user
    overrides it. If `ahead` is False, no idle work follows this request. `private` says why the text must not leave
    this machine, and is empty if it may. `shift` (log-odds) is added to the least probability at which its completion
    is shown; it was learned in the workspace.
    """

    cursor: Cursor
    document: str
    trigger: Trigger = "automatic"
    policy: Policy | None = None
    multiline: bool | None = None
    threshold: float | None = None
    ahead: bool = True
    private: str = ""
    shift: float = 0.0

    def apply(self, settings: CompletionSettings) -> CompletionSettings:
        """Return `settings` with the values that this request overrides."""
        if self.policy is not None:
            settings = replace(settings, policy=self.policy)
        if self.multiline is not None:
            settings = replace(settings, multiline=self.multiline)
        if settings.threshold is None:
            settings = replace(settings, threshold=self.threshold)
        return settings

    def after(self, text: str) -> Request:
        """Return the next request if the user accepts `text`."""
        cursor = replace(self.cursor, prefix=self.cursor.prefix + text)
        return replace(self, cursor=cursor, trigger="automatic")


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer to a request. If `text` is empty, `reason` says why.

    `others` has further candidates, best first. `hits` has the chunks in the prompt, with their scores in the search
    that found them, possibly for an earlier request. `timings_ms` has each stage that ran; `model` is the time inside
    llama.cpp, which the other stages include. `stats` has token counts. Both are for this request alone: a reused
    answer has no stages and a count `reused`, a joined one has a count `joined`. `trimmed` names what did not fit into
    the prompt: "left" and "right" of the cursor, or "context" if chunks were cut or left out. `parsed` says whether a
    grammar for the language checked the syntax of the text; brackets and quotes are always checked. `withheld` says why
    the text was not sent to the server that would have generated. `surprises` are of the tokens of the text.
    `shortened` says whether the model generated more of the first line. `keep` is the estimate in the model's metadata,
    and `estimate` its value here. Without it every text is shown.
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
        """Return this completion after its text was typed, except for `text`, its end."""
        typed = len(self.text) - len(text)
        return replace(self, text=text, surprises=rest_of(self.surprises, typed))
