"""LoRA (Hu et al., 2021): train a low-rank difference to each weight matrix instead of the matrix.

The linear layers keep their names. Each gets two matrices `down` (rank, in) and `up` (out, rank), with `up` initialized
to zero, and computes W x + 2 up (down x). All other parameters are frozen, including embeddings and norms. A checkpoint
stores the merged weights under their usual names, so that export, gate, label and later runs need no LoRA code. It also
stores the low-rank matrices, from which the same run resumes bit for bit.

This is one class instead of the `peft` library, because peft's wrapping would rename the tensors in checkpoints. The
trade-off: there is no dropout, there is one scale, and all linear layers or none have a difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

SCALE = 2.0


class LoraLinear(torch.nn.Linear):
    """A linear layer with a low-rank difference. `attach` converts an existing layer to this class."""

    down: torch.nn.Parameter
    up: torch.nn.Parameter

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return W x + b + 2 up (down x)."""
        reduced = torch.nn.functional.linear(input, self.down)
        return super().forward(input) + SCALE * torch.nn.functional.linear(reduced, self.up)


def attach(model: Any, rank: int, seed: int) -> None:
    """Freeze `model` and add trainable differences to its linear layers, except the output, which is the embedding."""
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    for layer in linear_layers(model):
        out, width = layer.weight.shape
        down = torch.randn(rank, width, generator=generator) / math.sqrt(width)
        layer.__class__ = LoraLinear
        layer.down = torch.nn.Parameter(down.to(layer.weight.device))
        layer.up = torch.nn.Parameter(torch.zeros(out, rank, device=layer.weight.device))


def linear_layers(model: Any) -> list[Any]:
    """Return the linear layers of a model, except its output, which is the embedding."""
    output = model.get_output_embeddings()
    return [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear) and layer is not output]


def state_of(model: Any) -> dict[str, Any]:
    """Return the content of a checkpoint: `model`, the weights, and, with LoRA, `lora`, the low-rank matrices.

    With LoRA, the weights are those after merging.
    """
    state = model.state_dict()
    layers = dict(_layers(model))
    if not layers:
        return {"model": state}
    low_rank = {f"{name}.{side}": state.pop(f"{name}.{side}") for name in layers for side in ("down", "up")}
    with torch.no_grad():
        for name, layer in layers.items():
            state[f"{name}.weight"] = layer.weight + SCALE * layer.up @ layer.down
    return {"model": state, "lora": low_rank}


def restore(model: Any, state: Mapping[str, Any]) -> None:
    """Load a checkpoint of the same run into `model`. With LoRA, only the low-rank matrices are loaded.

    The frozen weights of `model` already have the right values.
    """
    if "lora" in state:
        model.load_state_dict(state["lora"], strict=False)
    else:
        model.load_state_dict(state["model"])


def _layers(model: Any) -> Iterator[tuple[str, LoraLinear]]:
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLinear):
            yield name, layer
