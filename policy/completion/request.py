"""The values of a completion: the request, the settings, the answer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from indexer.model import Cursor, Hit
from policy.completion.shaping.region import indent
from policy.engine.messages import Surprise
from policy.gating.decision import Decision, Policy, SelectionRule
from policy.gating.keep import Estimate, Keep, Suggest, aligned, rest_of

Trigger = Literal["automatic", "invoked"]


@dataclass(frozen=True, slots=True)
class CompletionSettings:
    """The user's settings for completions.

    If `threshold` is None, the threshold of the workspace's calibration or of the model's metadata is used. `chunks` is
    the maximum number of chunks to retrieve. `line_tokens` and `block_tokens` are the maximum numbers of generated
    tokens for one line and for several lines. (The paper uses 50, and 256 for functions. Here, a block has to fit on a
    screen.)

    `patience` is the time limit of a completion in seconds. When this time has passed since the request, the generation
    ends as soon as it has a text to show. When three times this time has passed since the first token, it ends even
    without such a text, because the user would not see the text any more. An invoked request has eight times the time
    limit, counted from the first token, and gets up to `candidates` texts.

    If `ahead` is true, idle work generates the next completion and searches for better chunks than the pinned ones. If
    `ahead` is false, each request that retrieves waits for a search. `suggest` sets the showing threshold
    (`policy.gating.keep`).
    """

    policy: Policy = "selective"
    selection: SelectionRule = "threshold"
    threshold: float | None = None
    multiline: bool = True
    chunks: int = 10
    line_tokens: int = 50
    block_tokens: int = 128
    patience: float = 0.4
    candidates: int = 3
    ahead: bool = True
    suggest: Suggest = "balanced"


@dataclass(frozen=True, slots=True)
class Request:
    """A request for a completion at `cursor`.

    `document` identifies the document, usually by its URI. `policy` and `multiline` override the settings if they are
    not None. `threshold` is the calibrated threshold of the workspace or None. A threshold in the settings overrides
    it. If `ahead` is false, no idle work follows this request. `shift` is added to the log-odds of the showing
    threshold (`policy.gating.learned`).
    """

    cursor: Cursor
    document: str
    trigger: Trigger = "automatic"
    policy: Policy | None = None
    multiline: bool | None = None
    threshold: float | None = None
    ahead: bool = True
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
        """Return the request that is likely to follow if the user accepts `text`."""
        cursor = replace(self.cursor, prefix=self.cursor.prefix + text)
        return replace(self, cursor=cursor, trigger="automatic")

    def next_line(self, text: str) -> Cursor:
        """Return the cursor after a line break and the same indentation, if the user accepts the first line of `text`.

        If `text` begins with a line break, the cursor's line already is complete.
        """
        prefix = self.cursor.prefix + text.partition("\n")[0]
        line = prefix[prefix.rfind("\n") + 1 :]
        return replace(self.cursor, prefix=f"{prefix}\n{line[: indent(line)]}")


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer to a request. If `text` is empty, `reason` says why.

    `others` has further candidates, best first. `model` is the name of the model that generated the text. `hits` has
    the chunks in the prompt, with their scores. An earlier request may have searched for them.

    `timings_ms` has the time of each stage that ran, in milliseconds. Its entry `model` is the time spent in llama.cpp,
    which the times of other stages include. Its entry `queue` is the time in the worker's request queue, while the
    worker ends other work. `stats` has the numbers of tokens (`Attempt.stats`). Both are for this request alone. If the
    text comes from an earlier completion, `timings_ms` has only the total time, and `stats` is `{"reused": 1}`. If the
    request joined a pending completion, `stats` has an entry `joined`.

    `trimmed` names the parts that did not fit into the prompt: "left" and "right" for the text before and after the
    cursor, and "context" if chunks were cut or left out. `short_prompt` says that the prompt was short, because the
    whole one was not in the KV cache (`policy.engine.worker.prompts`). `parsed` says whether a grammar was used to
    check the syntax. Brackets and quotes are always checked. `withheld` says why the text around the cursor was not
    sent to the server that should have generated.

    `surprises` has the surprise of each token of `text`. `shortened` says whether `text` lacks a part of the first line
    that the model generated. `keep` is the model's formula for the estimate, and `estimate` is its value for `text`. If
    the model has no such formula, both are None, and every text is shown.
    """

    text: str
    decision: Decision | None = None
    hits: tuple[Hit, ...] = ()
    timings_ms: dict[str, float] = field(default_factory=dict)
    stats: dict[str, int] = field(default_factory=dict)
    model: str = ""
    reason: str = ""
    trimmed: tuple[str, ...] = ()
    short_prompt: bool = False
    others: tuple[str, ...] = ()
    parsed: bool = True
    withheld: str = ""
    surprises: tuple[Surprise, ...] = ()
    shortened: bool = False
    keep: Keep | None = None
    estimate: Estimate | None = None

    def rest(self, text: str, typed: int) -> Completion:
        """Return this completion after the user has typed its first `typed` characters. `text` is what remains."""
        surprises = rest_of(self.surprises, typed)
        return replace(self, text=text, surprises=aligned(self.text[typed:], text, surprises))
