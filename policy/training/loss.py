"""Cross-entropy at chosen positions, and the step that turns a batch of examples into gradients.

A small model with a large vocabulary spends as much on logits as on a fifth of its layers, and nearly all of its
memory: so logits are made only where a token counts, a few hundred rows at a time, and their gradient at once with
them. Sequences are padded on the right under a causal mask, so padding is never read and needs no attention mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .examples import Example, micro_batches

ROWS = 512


class RowCrossEntropy(torch.autograd.Function):
    """Weighted sum over rows of -log softmax(hidden @ table.T)[target]; also returns each row's value.

    `hidden` is (rows, width), `table` (vocabulary, width), `targets` and `weights` (rows,).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, table: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the loss, and the gradients of both inputs where they will be asked for."""
        wanted = any(ctx.needs_input_grad)
        values = torch.empty(len(hidden), device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if wanted else None
        grad_table = torch.zeros_like(table) if wanted else None
        for at in range(0, len(hidden), ROWS):
            rows = hidden[at : at + ROWS]
            target = targets[at : at + ROWS]
            logits = (rows @ table.to(rows.dtype).T).float()
            logits -= torch.logsumexp(logits, dim=1, keepdim=True)
            values[at : at + ROWS] = -logits.gather(1, target[:, None])[:, 0]
            if grad_hidden is not None and grad_table is not None:
                logits.exp_()
                logits[torch.arange(len(target), device=target.device), target] -= 1.0
                logits *= weights[at : at + ROWS, None]
                gradient = logits.to(rows.dtype)
                grad_hidden[at : at + ROWS] = gradient @ table.to(rows.dtype)
                grad_table += (gradient.T @ rows).to(table.dtype)
        ctx.save_for_backward(*([grad_hidden, grad_table] if wanted else []))
        ctx.mark_non_differentiable(values)
        return (values * weights).sum(), values

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor, _: torch.Tensor) -> Any:
        """Hand the stored gradients on."""
        grad_hidden, grad_table = ctx.saved_tensors
        return grad_hidden * upstream, grad_table * upstream, None, None


cross_entropy: Callable[..., tuple[torch.Tensor, torch.Tensor]] = RowCrossEntropy.apply


@dataclass(frozen=True, slots=True)
class Losses:
    """Mean negative log-likelihood in nats a token of the blanks, of L, and of the decisions; NaN where none count."""

    middle: float
    left: float
    decision: float


@dataclass(frozen=True, slots=True)
class Weights:
    """What the three means weigh in the loss; the blank's own weighs 1."""

    left: float = 0.0
    decision: float = 0.0


def backward(model: Any, batch: Sequence[Example], weights: Weights, micro_tokens: int, device: str) -> Losses:
    """Add the gradient of one batch to the model's; the result does not depend on `micro_tokens` but for rounding.

    When a GPU runs out of memory the batch starts again with half the tokens at a time.
    """
    while True:
        try:
            return _backward(model, batch, weights, micro_tokens, device)
        except torch.OutOfMemoryError:
            if micro_tokens <= max(len(example.tokens) for example in batch):
                raise
            micro_tokens //= 2
            model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()


def _backward(model: Any, batch: Sequence[Example], weights: Weights, micro_tokens: int, device: str) -> Losses:
    middles = sum(len(example.tokens) - example.middle for example in batch)
    lefts = sum(max(0, example.left_end - example.left - 1) for example in batch)
    decisions = sum(example.decision > 0 for example in batch)
    share = (1 / max(middles, 1), weights.left / max(lefts, 1), weights.decision / max(decisions, 1))
    sums = [0.0, 0.0, 0.0]
    for group in micro_batches(batch, micro_tokens):
        picked = [positions(example, with_left=weights.left > 0) for example in group]
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            hidden = hidden_states(model, [example.tokens for example in group], device)
        rows = torch.cat([hidden[row, torch.tensor(at)] for row, (at, _) in enumerate(picked)])
        targets = [group[row].tokens[i + 1] for row, (at, _) in enumerate(picked) for i in at]
        kinds = torch.tensor([kind for _, found in picked for kind in found])
        weight = torch.tensor(share)[kinds].to(device)
        table = model.get_output_embeddings().weight
        loss, values = cross_entropy(rows, table, torch.tensor(targets, device=device), weight)
        torch.autograd.backward(loss)
        for kind in range(3):
            sums[kind] += float(values.cpu().double()[kinds == kind].sum())
    nan = float("nan")
    means = [total / count if count else nan for total, count in zip(sums, (middles, lefts, decisions), strict=True)]
    return Losses(means[0], means[1] if weights.left else nan, means[2])


def positions(example: Example, *, with_left: bool) -> tuple[list[int], list[int]]:
    """Positions whose next token counts, and what for: 0 the blank, 1 the left context, 2 the decision."""
    at = list(range(example.middle - 1, len(example.tokens) - 1))
    kinds = [0] * len(at)
    if with_left:
        left = range(example.left, example.left_end - 1)
        at, kinds = at + list(left), kinds + [1] * len(left)
    if example.decision:
        at, kinds = [*at, example.decision - 1], [*kinds, 2]
    return at, kinds


def hidden_states(model: Any, sequences: Sequence[Sequence[int]], device: str) -> torch.Tensor:
    """Last hidden states, (sequences, longest, width)."""
    longest = max(map(len, sequences))
    ids = torch.tensor([[*tokens, *([0] * (longest - len(tokens)))] for tokens in sequences], device=device)
    hidden: torch.Tensor = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return hidden


@torch.no_grad()
def nll(model: Any, examples: Sequence[Example], micro_tokens: int, device: str) -> list[float]:
    """Summed negative log-likelihood in nats of each example's blank (its end token included), in their order."""
    found: dict[int, float] = {}
    for group in micro_batches(examples, micro_tokens):
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            hidden = hidden_states(model, [example.tokens for example in group], device)
        table = model.get_output_embeddings().weight.detach()
        for row, example in enumerate(group):
            rows = hidden[row, example.middle - 1 : len(example.tokens) - 1]
            targets = torch.tensor(example.tokens[example.middle :], device=device)
            _, values = cross_entropy(rows, table, targets, torch.ones(len(targets), device=device))
            found[id(example)] = float(values.sum())
    return [found[id(example)] for example in examples]


@torch.no_grad()
def first_logits(
    model: Any, examples: Sequence[Example], micro_tokens: int, device: str
) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    """Logits (vocabulary,) of the token that follows each example's prompt, in their order."""
    found: dict[int, np.ndarray[Any, np.dtype[np.float64]]] = {}
    for group in micro_batches(examples, micro_tokens):
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            hidden = hidden_states(model, [example.tokens[: example.middle] for example in group], device)
        table = model.get_output_embeddings().weight.detach()
        for row, example in enumerate(group):
            logits = hidden[row, example.middle - 1].float() @ table.float().T
            found[id(example)] = logits.double().cpu().numpy()
    return [found[id(example)] for example in examples]
