"""Cross-entropy at chosen positions, and the backward pass over a batch of examples.

A small model with a large vocabulary spends a large share of its time, and nearly all of its memory, on logits.
Therefore logits are computed only for the positions that count in the loss, `ROWS` positions at a time, together with
their gradient. Sequences are padded on the right. Under a causal mask, no token attends to this padding, so no further
attention mask is needed. L is the text before the blank of an example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch

from .compute import Compute
from .examples import Example, micro_batches

ROWS = 512
_BLANK, _LEFT, _DECISION = range(3)
Result = TypeVar("Result")


class RowCrossEntropy(torch.autograd.Function):
    """Computes -log softmax(hidden @ table.T)[target] of each row, and the weighted sum of these values.

    `hidden` has the shape (rows, width), `table` (vocabulary, width), and `targets` and `weights` (rows,).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, table: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weighted sum, and the values of the rows, shape (rows,).

        If gradients of `hidden` and `table` are needed, they are computed here too and stored for `backward`.
        """
        wanted, trained = any(ctx.needs_input_grad), ctx.needs_input_grad[1]
        cast = table.to(hidden.dtype)
        values = torch.empty(len(hidden), device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if wanted else None
        grad_table = torch.zeros_like(table) if trained else None
        for at in range(0, len(hidden), ROWS):
            rows = hidden[at : at + ROWS]
            target = targets[at : at + ROWS]
            logits = (rows @ cast.T).float()
            logits -= torch.logsumexp(logits, dim=1, keepdim=True)
            values[at : at + ROWS] = -logits.gather(1, target[:, None])[:, 0]
            if grad_hidden is not None:
                logits.exp_()
                logits[torch.arange(len(target), device=target.device), target] -= 1.0
                logits *= weights[at : at + ROWS, None]
                gradient = logits.to(rows.dtype)
                grad_hidden[at : at + ROWS] = gradient @ cast
                if grad_table is not None:
                    grad_table += (gradient.T @ rows).to(table.dtype)
        ctx.save_for_backward(grad_hidden, grad_table)
        ctx.mark_non_differentiable(values)
        return (values * weights).sum(), values

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor, _: torch.Tensor) -> Any:
        """Return the stored gradients times `upstream`."""
        grad_hidden, grad_table = ctx.saved_tensors
        return grad_hidden * upstream, None if grad_table is None else grad_table * upstream, None, None


cross_entropy: Callable[..., tuple[torch.Tensor, torch.Tensor]] = RowCrossEntropy.apply


@dataclass(frozen=True, slots=True)
class Losses:
    """Mean -ln P in nats per token: of the truths of the blanks (`middle`), of L (`left`), and of the decisions.

    The truth of a blank includes its end token. A mean over no tokens is NaN.
    """

    middle: float
    left: float
    decision: float


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of two parts of the loss: the mean over the tokens of L (`left`), and the mean over the decisions.

    The third part, the mean over the tokens of the truths, has the weight 1. Within the mean over the decisions,
    `target_weights` has the weight of a decision by its target token; the default is 1.
    """

    left: float = 0.0
    decision: float = 0.0
    target_weights: Mapping[int, float] = field(default_factory=dict)


def backward(model: Any, batch: Sequence[Example], weights: Weights, compute: Compute) -> Losses:
    """Run the forward and backward pass of one batch, and return its losses.

    Except for rounding, the result does not depend on `compute.micro_tokens`. If a GPU runs out of memory, the batch
    restarts with half as many tokens at a time.
    """

    def step(compute: Compute) -> Losses:
        total = _Totals.of(batch, weights)
        _forward_backward(model, batch, weights, total, compute, lambda example, _nll: example.tokens[example.decision])
        return total.means(weights)

    return _retry_on_out_of_memory(model, batch, compute, step)


def backward_own_labels(
    model: Any,
    pairs: Sequence[tuple[Example, Example]],
    weights: Weights,
    is_positive: Callable[[float, float], bool],
    cc: int,
    compute: Compute,
) -> tuple[Losses, float]:
    """Run the forward and backward pass of pairs: the plain example of a blank, with a decision, and the retrieved one.

    The model learns to complete both examples. The target of the decision depends on the nats (-ln P) of the blank's
    truth in the two examples. The target is `cc` if `is_positive(nats without chunks, nats with chunks)` is true, else
    the token after `<eof>` in the plain example. The nats come from this forward pass, so the target needs no extra
    pass and fits the current weights. Return the losses, and the share of the decisions with the target `cc`.
    """
    plain, retrieved = [first for first, _ in pairs], [second for _, second in pairs]
    partner = {id(first): id(second) for first, second in pairs}

    def step(compute: Compute) -> tuple[Losses, float]:
        total = _Totals.of([*plain, *retrieved], weights)
        positive: list[bool] = []

        def decision_target(example: Example, nll: float) -> int:
            positive.append(is_positive(nll, with_context[partner[id(example)]]))
            return cc if positive[-1] else example.tokens[example.decision]

        with_context = _forward_backward(model, retrieved, weights, total, compute, decision_target)
        _forward_backward(model, plain, weights, total, compute, decision_target)
        return total.means(weights), sum(positive) / len(positive)

    return _retry_on_out_of_memory(model, [*plain, *retrieved], compute, step)


@dataclass(slots=True)
class _Totals:
    """The totals of the three parts of the loss: the truths, L, and the decisions.

    `counts` has the number of tokens of each part, `shares` the weight of one token in the loss, and `sums` the sum of
    -ln P over the tokens so far, in nats.
    """

    counts: tuple[int, int, int]
    shares: tuple[float, float, float]
    sums: list[float]

    @classmethod
    def of(cls, batch: Sequence[Example], weights: Weights) -> _Totals:
        middles = sum(len(example.tokens) - example.middle for example in batch)
        lefts = sum(max(0, example.left_end - example.left - 1) for example in batch)
        decisions = sum((example.decision > 0) + len(example.probes) for example in batch)
        shares = (1 / max(middles, 1), weights.left / max(lefts, 1), weights.decision / max(decisions, 1))
        return cls((middles, lefts, decisions), shares, [0.0, 0.0, 0.0])

    def means(self, weights: Weights) -> Losses:
        nan = float("nan")
        means = [total / count if count else nan for total, count in zip(self.sums, self.counts, strict=True)]
        return Losses(means[0], means[1] if weights.left else nan, means[2])


def _forward_backward(
    model: Any,
    batch: Sequence[Example],
    weights: Weights,
    total: _Totals,
    compute: Compute,
    target: Callable[[Example, float], int],
) -> dict[int, float]:
    """Run the forward and backward pass of `batch`, and add its losses to `total`.

    `target(example, nats)` returns the target token of the example's decision, where `nats` is -ln P of the truth of
    the example's blank. Return the nats of each example, by the `id()` of the example.
    """
    found: dict[int, float] = {}
    table = model.get_output_embeddings().weight
    for group in micro_batches(batch, compute.micro_tokens):
        with compute.autocast():
            hidden, probed = hidden_with_probes(model, group, compute.device)
        hidden = hidden.to(compute.dtype)
        positions = [
            (row, at, kind) for row, example in enumerate(group) for at, kind in _counted_positions(example, total)
        ]
        kinds = torch.tensor([kind for _, _, kind in positions], dtype=torch.long)
        loss, values = _loss(hidden, table, [(row, at, group[row].tokens[at + 1]) for row, at, _ in positions],
                             torch.tensor(total.shares)[kinds])  # fmt: skip
        for kind in (_BLANK, _LEFT):
            total.sums[kind] += float(values[kinds == kind].sum())
        owners = torch.tensor([row for row, _, _ in positions], dtype=torch.long)
        found |= {id(each): float(values[(owners == row) & (kinds == _BLANK)].sum()) for row, each in enumerate(group)}
        deciding = [(row, each.decision - 1, target(each, found[id(each)]))
                    for row, each in enumerate(group) if each.decision]  # fmt: skip
        deciding += probed
        if deciding:
            weight = [weights.target_weights.get(token, 1.0) for _, _, token in deciding]
            share = torch.tensor(weight) * total.shares[_DECISION]
            decided, values = _loss(hidden, table, deciding, share)
            total.sums[_DECISION] += float(values.sum())
            loss = loss + decided
        torch.autograd.backward(loss)
    return found


def hidden_with_probes(
    model: Any, group: Sequence[Example], device: str
) -> tuple[torch.Tensor, list[tuple[int, int, int]]]:
    """Return the last hidden states, shape (examples, columns, width), and (row, column, target) for each probe.

    Each sequence has extra columns for its probes, after the columns of the longest sequence. A probe is an extra
    `<eof>` that attends only to itself and to the tokens before the probe. Its position number is the one after these
    tokens, as if the cursor were there. So one forward pass evaluates all decisions of a sequence.
    """
    columns = max(len(example.probes) for example in group)
    if not columns:
        return hidden_states(model, [example.tokens for example in group], device), []
    longest = max(len(example.tokens) for example in group)
    width = longest + columns
    ids = torch.zeros(len(group), width, dtype=torch.long)
    positions = torch.arange(width).repeat(len(group), 1)
    mask = torch.ones(width, width, dtype=torch.bool).tril().repeat(len(group), 1, 1)
    mask[:, longest:] = torch.eye(width, dtype=torch.bool)[longest:]
    probed = []
    for row, example in enumerate(group):
        ids[row, : len(example.tokens)] = torch.tensor(example.tokens)
        for column, (visible, target) in enumerate(example.probes, longest):
            ids[row, column] = example.tokens[example.decision - 1]  # `<eof>`
            positions[row, column] = visible
            mask[row, column, :visible] = True
            probed.append((row, column, target))
    hidden: torch.Tensor = model.base_model(
        input_ids=ids.to(device),
        attention_mask=mask[:, None].to(device),
        position_ids=positions.to(device),
        use_cache=False,
    ).last_hidden_state
    return hidden, probed


def _loss(
    hidden: torch.Tensor, table: torch.Tensor, wanted: Sequence[tuple[int, int, int]], weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weighted sum of the cross-entropies at each (row, position, target) of `wanted`.

    Also return the cross-entropies without weights, as a tensor on the CPU in float64.
    """
    rows, at, targets = torch.tensor(wanted, dtype=torch.long, device=hidden.device).reshape(-1, 3).T
    loss, values = cross_entropy(hidden[rows, at], table, targets, weight.to(hidden.device))
    return loss, values.cpu().double()


def _counted_positions(example: Example, total: _Totals) -> list[tuple[int, int]]:
    """Return (position, kind) for each position whose next token counts in the loss of the truth or of L."""
    at = [(place, _BLANK) for place in range(example.middle - 1, len(example.tokens) - 1)]
    if total.shares[_LEFT]:
        at += [(place, _LEFT) for place in range(example.left, example.left_end - 1)]
    return at


def _retry_on_out_of_memory(
    model: Any, batch: Sequence[Example], compute: Compute, step: Callable[[Compute], Result]
) -> Result:
    """Run `step` and return its result. After each out-of-memory error, halve `micro_tokens` and run `step` again."""
    while True:
        try:
            return step(compute)
        except torch.OutOfMemoryError:
            if compute.micro_tokens <= max(len(example.tokens) for example in batch):
                raise
            compute = replace(compute, micro_tokens=compute.micro_tokens // 2)
            model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()


def hidden_states(model: Any, sequences: Sequence[Sequence[int]], device: str) -> torch.Tensor:
    """Return the last hidden states, shape (sequences, length of the longest sequence, width)."""
    longest = max(map(len, sequences))
    ids = torch.tensor([[*tokens, *([0] * (longest - len(tokens)))] for tokens in sequences], device=device)
    hidden: torch.Tensor = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return hidden


@torch.no_grad()
def nll(model: Any, examples: Sequence[Example], compute: Compute) -> list[float]:
    """Return -ln P of the truth of each example's blank, in nats: the sum over its tokens and the end token."""
    found: dict[int, float] = {}
    for group in micro_batches(examples, compute.micro_tokens):
        with compute.autocast():
            hidden = hidden_states(model, [example.tokens for example in group], compute.device)
        table = model.get_output_embeddings().weight.detach()
        for row, example in enumerate(group):
            rows = hidden[row, example.middle - 1 : len(example.tokens) - 1].to(compute.dtype)
            targets = torch.tensor(example.tokens[example.middle :], device=compute.device)
            _, values = cross_entropy(rows, table, targets, torch.ones(len(targets), device=compute.device))
            found[id(example)] = float(values.sum())
    return [found[id(example)] for example in examples]


@torch.no_grad()
def first_logits(
    model: Any, examples: Sequence[Example], compute: Compute
) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    """Return the logits of the token that follows the prompt of each example, shape (vocabulary,)."""
    found: dict[int, np.ndarray[Any, np.dtype[np.float64]]] = {}
    for group in micro_batches(examples, compute.micro_tokens):
        with compute.autocast():
            hidden = hidden_states(model, [example.tokens[: example.middle] for example in group], compute.device)
        table = model.get_output_embeddings().weight.detach()
        for row, example in enumerate(group):
            logits = hidden[row, example.middle - 1].float() @ table.float().T
            found[id(example)] = logits.double().cpu().numpy()
    return [found[id(example)] for example in examples]
