"""From what is known when a decision is due to the probability that retrieval helps.

A gate is a logistic regression of a few hundred bytes that the model's metadata carry, fitted on validation
repositories (`repoformer-lsp train gate`). The gate *token* looks at P(`<cc>`) alone: it says at which rate retrieval
helped where the model said so (calibration; monotone, so it changes no ranking). The gate *hybrid* looks at what
retrieval found as well, which is there by the time the model has read L (milliseconds against tens of them): the model
knows what is missing, retrieval knows whether the repository has it. A model whose metadata carry none is taken at its
word, against the paper's thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from policy.gating.evidence import Evidence

Name = Literal["evidence", "hybrid", "token"]
Feature = Literal["token", "entropy", "top", "score", "second", "names", "overlap", "block"]
Scope = Literal["line", "block"]

FEATURES: tuple[Feature, ...] = get_args(Feature)
OF_RETRIEVAL: frozenset[Feature] = frozenset({"score", "second", "names", "overlap"})
PAPER = {"line": 0.20, "block": 0.15}  # thresholds of section 5.1: 0.15 for functions, 0.20 for everything else
_KEY = "repoformer.gate"


@dataclass(frozen=True, slots=True)
class Known:
    """What a decision can look at; None is what nobody knows.

    `p_cc` is P(`<cc>`) in [0, 1]; `first_p` and `first_entropy` (nats) are of the first token without context;
    `evidence` is what retrieval found.
    """

    kind: Scope
    p_cc: float | None = None
    first_p: float | None = None
    first_entropy: float | None = None
    evidence: Evidence | None = None

    def value(self, feature: Feature) -> float | None:
        """The number that stands for `feature` in a gate."""
        match feature:
            case "token":
                return None if self.p_cc is None else log_odds(self.p_cc)
            case "entropy":
                return self.first_entropy
            case "top":
                return self.first_p
            case "block":
                return float(self.kind == "block")
        if self.evidence is None:
            return None
        found = self.evidence
        numbers = {
            "score": found.best, "second": found.second, "names": math.log1p(found.names), "overlap": found.overlap,
        }  # fmt: skip
        return numbers[feature]


@dataclass(frozen=True, slots=True)
class Gate:
    """P = sigmoid(`offset` + the sum of `weights`[feature] · feature), and the P over which to retrieve.

    A gate on evidence has two more borders: up to `sure_below` it abstains and from `sure_above` on it retrieves
    without asking the model. In between the gate `hybrid` decides, where there is one.
    """

    name: Name
    weights: Mapping[Feature, float]
    offset: float = 0.0
    line: float = PAPER["line"]
    block: float = PAPER["block"]
    sure_below: float = 1.0
    sure_above: float = 1.0

    @property
    def asks_retrieval(self) -> bool:
        """Whether it looks at what retrieval found."""
        return not OF_RETRIEVAL.isdisjoint(self.weights)

    def probability(self, known: Known) -> float | None:
        """That retrieval helps; None where something that the gate looks at is not known."""
        total = self.offset
        for feature, weight in self.weights.items():
            value = known.value(feature)
            if value is None:
                return None
            total += weight * value
        return 0.5 * (1 + math.tanh(0.5 * total))  # the logistic function, without overflow

    def is_sure(self, p: float) -> bool:
        """Whether a probability `p` of this gate needs no second opinion."""
        return p <= self.sure_below or p >= self.sure_above

    def threshold(self, kind: Scope) -> float:
        """That of a completion of `kind`."""
        return self.line if kind == "line" else self.block

    def to_metadata(self) -> dict[str, float]:
        """Keys and values by which a GGUF file carries it."""
        numbers: dict[str, float] = {"offset": self.offset, "threshold.line": self.line, "threshold.block": self.block}
        numbers |= {str(feature): weight for feature, weight in self.weights.items()}
        if self.name == "evidence":
            numbers |= {"sure.below": self.sure_below, "sure.above": self.sure_above}
        return {f"{_KEY}.{self.name}.{key}": float(value) for key, value in numbers.items()}


AS_SAID = Gate("token", {"token": 1.0})


def carried(metadata: Mapping[str, str], name: Name) -> Gate | None:
    """The gate `name` that a model's metadata carry; None where they carry none, or one that makes no sense."""
    start = f"{_KEY}.{name}."
    try:
        numbers = {key.removeprefix(start): float(text) for key, text in metadata.items() if key.startswith(start)}
        offset, line, block = (numbers.pop(key) for key in ("offset", "threshold.line", "threshold.block"))
        below, above = numbers.pop("sure.below", 1.0), numbers.pop("sure.above", 1.0)
    except (KeyError, ValueError):
        return None
    allowed = set(FEATURES) if name != "evidence" else {*OF_RETRIEVAL, "block"}
    if not numbers or not numbers.keys() <= allowed:
        return None
    if not all(map(math.isfinite, (*numbers.values(), offset, line, block, below, above))):
        return None
    return Gate(name, cast("dict[Feature, float]", numbers), offset, line, block, below, above)


def evidence_gate(metadata: Mapping[str, str]) -> Gate | None:
    """The gate that decides before the model reads, if the metadata carry one."""
    return carried(metadata, "evidence")


def gates_of(metadata: Mapping[str, str]) -> list[Gate]:
    """The gates that a model can be served with, the default first; the last looks at P(`<cc>`) alone."""
    hybrid, token = carried(metadata, "hybrid"), carried(metadata, "token") or AS_SAID
    return [hybrid, token] if hybrid else [token]


def log_odds(p: float) -> float:
    """ln(p / (1 - p)), with p kept off 0 and 1."""
    p = min(max(p, 1e-9), 1 - 1e-9)
    return math.log(p / (1 - p))
