"""Estimate the probability that the user keeps a generated text, and decide whether to show it.

The estimate is a logistic regression, like a gate (`policy.gating.gate`). `repoformer-lsp train keep` fits the weights
on an evaluation of the model, in which a text counts as kept if it is exactly correct to its line's end. The model's
metadata stores the weights under `repoformer.keep.*`. If these keys are missing, every text is shown.

The features are computed from the probabilities of the generated tokens, the text itself, and the line around the
cursor. They need no further call of the model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from indexer.languages import LANGUAGES
from indexer.model import Cursor, Hit
from policy.engine.messages import Surprise

Suggest = Literal["eager", "balanced", "careful"]
Feature = Literal[
    "mean", "worst", "first", "length", "block", "strange", "shortened", "again", "begun", "rest", "closed", "space",
    "comment",
]  # fmt: skip

FEATURES: tuple[Feature, ...] = get_args(Feature)
_KEY = "repoformer.keep."
_NAMES = 12  # the maximum number of names in a text that `_strange` searches for
_NEIGHBOURS = 1_500  # the number of characters on each side of the cursor in which `_again` searches for the same line
_WORD = re.compile(r"[^\W\d]\w{2,}")
_COMMENTS = {language.id: language.comment.strip() for language in LANGUAGES.values()}


@dataclass(frozen=True, slots=True)
class Estimate:
    """The probability `p` that the user keeps a text, and the showing threshold. Both are in [0, 1].

    The threshold applies to automatic suggestions, and depends on the setting `suggest`.
    """

    p: float
    threshold: float
    suggest: Suggest

    @property
    def shown(self) -> bool:
        """Whether the text is shown if the user did not request it."""
        return self.p >= self.threshold


@dataclass(frozen=True, slots=True)
class Keep:
    """A logistic regression: P = sigmoid(`offset` + the sum of `weights`[feature] · feature).

    `balanced` and `careful` are the showing thresholds for P with these values of the setting `suggest`.
    """

    weights: Mapping[Feature, float]
    offset: float
    balanced: float
    careful: float

    def probability(self, values: Mapping[Feature, float]) -> float:
        """Return P for a text whose features have these `values`."""
        total = self.offset + sum(weight * values[feature] for feature, weight in self.weights.items())
        return 0.5 * (1 + math.tanh(0.5 * total))

    def estimate(self, values: Mapping[Feature, float], suggest: Suggest, shift: float = 0.0) -> Estimate:
        """Return the estimate for a text whose features have these `values`.

        `shift` is added to the log-odds of the threshold. It is learned in the workspace (`policy.gating.learned`).
        """
        threshold = {"eager": 0.0, "balanced": self.balanced, "careful": self.careful}[suggest]
        if 0 < threshold < 1:
            threshold = 0.5 * (1 + math.tanh(0.5 * (math.log(threshold / (1 - threshold)) + shift)))
        return Estimate(self.probability(values), threshold, suggest)

    def to_metadata(self) -> dict[str, str]:
        """Return the keys and values for the metadata of a GGUF file or a card."""
        numbers: dict[str, float] = {
            "offset": self.offset, "threshold.balanced": self.balanced, "threshold.careful": self.careful,
        }  # fmt: skip
        numbers |= {str(feature): weight for feature, weight in self.weights.items()}
        return {_KEY + name: f"{value:.6g}" for name, value in numbers.items()}


def keep_from_metadata(metadata: Mapping[str, str]) -> Keep | None:
    """Return the `Keep` of a model from its metadata, or None if the keys are missing or the values are invalid."""
    try:
        numbers = {key.removeprefix(_KEY): float(text) for key, text in metadata.items() if key.startswith(_KEY)}
        offset, balanced, careful = (numbers.pop(key) for key in ("offset", "threshold.balanced", "threshold.careful"))
    except (KeyError, ValueError):
        return None
    if not numbers or not numbers.keys() <= set(FEATURES):
        return None
    if not all(map(math.isfinite, (*numbers.values(), offset))) or not (0 <= balanced <= 1 and 0 <= careful <= 1):
        return None
    return Keep(cast("dict[Feature, float]", numbers), offset, balanced, careful)


def features(
    cursor: Cursor, text: str, surprises: Sequence[Surprise], hits: Sequence[Hit] = (), *, shortened: bool = False
) -> dict[Feature, float] | None:
    """Return the features of `text` at `cursor`, or None if the probabilities of its tokens are unknown.

    `text` is the part of a completion that is shown, and `surprises` is the result of `aligned` for this part. `hits`
    has the chunks in the prompt. `shortened` is the result of `is_shortened`.
    """
    if not surprises or not text.strip():
        return None
    nats = [surprise.nats for surprise in surprises]
    line = cursor.prefix[cursor.prefix.rfind("\n") + 1 :]
    rest = cursor.suffix.partition("\n")[0]
    last = line[-1:]
    begun = bool(line.strip())
    comment = _COMMENTS.get(cursor.language, "")
    return {
        "mean": sum(nats) / len(nats),
        "worst": max(nats),
        "first": nats[0],
        "length": math.log1p(len(text.strip())),
        "block": float("\n" in text.strip()),
        "strange": math.log1p(_strange(cursor, text, hits)),
        "shortened": float(shortened),
        "again": float(_again(cursor, line, text, rest)),
        "begun": float(begun),
        "rest": float(bool(rest.strip())),
        "closed": float(begun and not rest.strip() and last in ";)}],\"'"),
        "space": float(begun and last.isspace()),
        "comment": float(bool(comment) and comment in line),
    }


def aligned(written: str, shown: str, surprises: Sequence[Surprise]) -> tuple[Surprise, ...]:
    """Return the surprises of the tokens that are visible in `shown`.

    `written` is the generated text, `surprises` has the surprises of all its tokens, and `shown` is the part of it that
    is shown. In the result, `Surprise.end` is an offset in `shown`, whose indentation may differ from that of
    `written`.
    """
    shift = (len(written) - len(written.lstrip())) - (len(shown) - len(shown.lstrip()))
    kept, start = [], 0
    for surprise in surprises:
        if start - shift >= len(shown.rstrip()):
            break
        kept.append(Surprise(surprise.end - shift, surprise.nats))
        start = surprise.end
    return tuple(kept)


def rest_of(surprises: Sequence[Surprise], typed: int) -> tuple[Surprise, ...]:
    """Return the surprises of the text that remains after the user has typed its first `typed` characters."""
    return tuple(Surprise(each.end - typed, each.nats) for each in surprises if each.end > typed)


def is_shortened(written: str, shown: str) -> bool:
    """Return whether `shown` lacks a part of the first line of `written`, the generated text."""
    return _first_line(shown) != _first_line(written)


def _first_line(text: str) -> str:
    return text.lstrip().partition("\n")[0].rstrip()


def _strange(cursor: Cursor, text: str, hits: Sequence[Hit]) -> int:
    """Return how many names in `text` occur neither in the file nor in the chunks of `hits`."""
    names = list(dict.fromkeys(_WORD.findall(text)))[:_NAMES]
    places = (cursor.prefix, cursor.suffix, *(hit.chunk.text for hit in hits))
    return sum(not any(name in place for place in places) for name in names)


def _again(cursor: Cursor, line: str, text: str, rest: str) -> bool:
    """Return whether the cursor's line, completed with `text`, already occurs near the cursor.

    `line` is the part of the cursor's line before the cursor, and `rest` the part after it.
    """
    first, *others = text.split("\n")
    whole = (line + first + ("" if others else rest)).strip()
    near = cursor.prefix[-_NEIGHBOURS:] + "\n" + cursor.suffix[:_NEIGHBOURS]
    return len(whole) > 3 and whole in (other.strip() for other in near.split("\n"))
