"""Gates: formulas for the probability that retrieval helps, from the values that are known when the decision is made.

A gate is a logistic regression with a few weights. `repoformer-lsp train gate` fits the weights on validation
repositories, and the model's metadata stores them. There are three gates:

- *token* uses only P(`<cc>`), the probability with which the model asks for cross-file context. The gate converts it to
  the frequency with which retrieval helped in those repositories. A greater P(`<cc>`) always gives a greater result.
- *hybrid* also uses the hits of the search. The model knows whether information is missing, and the hits show whether
  the repository has it. The search takes milliseconds and ends before the model has read the prompt, so this gate does
  not delay the decision.
- *evidence* uses only the hits.

For a model without gates in its metadata, P(`<cc>`) is compared with the paper's thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from policy.gating.evidence import Evidence

Name = Literal["evidence", "hybrid", "token"]
Feature = Literal["token", "entropy", "top", "score", "second", "names", "overlap", "match", "block"]
Scope = Literal["line", "block"]

FEATURES: tuple[Feature, ...] = get_args(Feature)
OF_RETRIEVAL: frozenset[Feature] = frozenset({"score", "second", "names", "overlap", "match"})
PAPER = {"line": 0.20, "block": 0.15}  # the paper's thresholds (section 5.1): 0.15 for functions, else 0.20
_KEY = "repoformer.gate"


@dataclass(frozen=True, slots=True)
class GateInputs:
    """The values that a gate can use. None means that a value is unknown.

    `kind` says whether a line or a block is completed. `p_cc` is P(`<cc>`), in [0, 1]. `first_p` and `first_entropy`
    describe the distribution of the first token that is generated without cross-file context: the probability of the
    most probable token, and the entropy in nats. `evidence` comes from the hits of the search.
    """

    kind: Scope
    p_cc: float | None = None
    first_p: float | None = None
    first_entropy: float | None = None
    evidence: Evidence | None = None

    def value(self, feature: Feature) -> float | None:
        """Return the value of `feature`, or None if it is unknown."""
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
            "match": math.log1p(found.match),
        }  # fmt: skip
        return numbers[feature]


@dataclass(frozen=True, slots=True)
class Gate:
    """A logistic regression: P = sigmoid(`offset` + the sum of `weights`[feature] · feature).

    `line` and `block` are the thresholds for P when a line or a block is completed.

    The gate *evidence* has two more thresholds. If P is at most `sure_below` or at least `sure_above`, this gate
    decides, and the model is not asked. If P is between these thresholds, the gate *hybrid* decides, if the model has
    one.
    """

    name: Name
    weights: Mapping[Feature, float]
    offset: float = 0.0
    line: float = PAPER["line"]
    block: float = PAPER["block"]
    sure_below: float = 1.0  # the default makes every P sure, so that this gate always decides
    sure_above: float = 1.0

    @property
    def needs_evidence(self) -> bool:
        """Whether the gate uses the hits of a search."""
        return not OF_RETRIEVAL.isdisjoint(self.weights)

    def probability(self, known: GateInputs) -> float | None:
        """Return the probability that retrieval helps, or None if a feature of the gate is unknown."""
        total = self.offset
        for feature, weight in self.weights.items():
            value = known.value(feature)
            if value is None:
                return None
            total += weight * value
        return 0.5 * (1 + math.tanh(0.5 * total))  # the logistic function, without overflow

    def is_sure(self, p: float) -> bool:
        """Return whether this gate decides alone if its probability is `p`, so that the model is not asked."""
        return p <= self.sure_below or p >= self.sure_above

    def threshold(self, kind: Scope) -> float:
        """Return the threshold for completions of `kind`."""
        return self.line if kind == "line" else self.block

    def to_metadata(self) -> dict[str, float]:
        """Return the keys and values that represent this gate in the metadata of a GGUF file."""
        numbers: dict[str, float] = {"offset": self.offset, "threshold.line": self.line, "threshold.block": self.block}
        numbers |= {str(feature): weight for feature, weight in self.weights.items()}
        if self.name == "evidence":
            numbers |= {"sure.below": self.sure_below, "sure.above": self.sure_above}
        return {f"{_KEY}.{self.name}.{key}": float(value) for key, value in numbers.items()}


UNCALIBRATED = Gate("token", {"token": 1.0})


def gate_from_metadata(metadata: Mapping[str, str], name: Name) -> Gate | None:
    """Return the gate `name` from a model's metadata, or None if the gate is absent or invalid."""
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
    """Return the gate *evidence*, which decides before the model reads the prompt, or None if there is no such gate."""
    return gate_from_metadata(metadata, "evidence")


def gates_of(metadata: Mapping[str, str]) -> list[Gate]:
    """Return the gates that can decide after the model has read the prompt, the default first, and *token* last."""
    hybrid, token = gate_from_metadata(metadata, "hybrid"), gate_from_metadata(metadata, "token") or UNCALIBRATED
    return [hybrid, token] if hybrid else [token]


def selectable_gates(metadata: Mapping[str, str], *, decides: bool) -> list[Gate]:
    """Return the gates that can decide for a model, the default first.

    `decides` says whether the model has the token `<cc>`. A model without it has only the gate *evidence*, or no gate.
    """
    if decides:
        return gates_of(metadata)
    gate = evidence_gate(metadata)
    return [gate] if gate else []


def log_odds(p: float) -> float:
    """Return ln(p / (1 - p)). `p` is clipped to [1e-9, 1 - 1e-9], so that the result is finite."""
    p = min(max(p, 1e-9), 1 - 1e-9)
    return math.log(p / (1 - p))
