"""LoRA (Hu et al., 2021): train a small difference to each weight matrix instead of the matrix.

The linear layers stay where they are and keep their names; each gets two thin matrices `down` (rank, in) and `up` (out,
rank), `up` beginning at zero, and computes W x + 2 up (down x). Everything else is frozen, embeddings and norms too. A
checkpoint has the merged weights under their own names, so that whatever reads it (export, gate, labels, a further
run) knows nothing of this, and the thin matrices beside them, from which alone a run goes on bit for bit.

Written out instead of taken from `peft`: it is one class, and peft's wrapping would rename what checkpoints hold. The
trade-off: no dropout, one scale, all linear layers or none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

SCALE = 2.0


class LoraLinear(torch.nn.Linear):
    """A linear layer with a difference of low rank; made out of a layer that is there, by `attach`."""

    down: torch.nn.Parameter
    up: torch.nn.Parameter

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """W x + b + 2 up (down x)."""
        thin = torch.nn.functional.linear(input, self.down)
        return super().forward(input) + SCALE * torch.nn.functional.linear(thin, self.up)


def attach(model: Any, rank: int, seed: int) -> None:
    """Freeze `model` and give its linear layers (but the output, which is the embedding) differences to train."""
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    for layer in linear_layers(model):
        out, width = layer.weight.shape
        down = torch.randn(rank, width, generator=generator) / math.sqrt(width)
        layer.__class__ = LoraLinear
        layer.down = torch.nn.Parameter(down.to(layer.weight.device))
        layer.up = torch.nn.Parameter(torch.zeros(out, rank, device=layer.weight.device))


def linear_layers(model: Any) -> list[Any]:
    """The linear layers of a model but its output, which is the embedding."""
    output = model.get_output_embeddings()
    return [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear) and layer is not output]


def state_of(model: Any) -> dict[str, Any]:
    """What a checkpoint holds of a model: `model`, the weights to use; with LoRA `lora`, the differences apart."""
    state = model.state_dict()
    layers = dict(_layers(model))
    if not layers:
        return {"model": state}
    thin = {f"{name}.{side}": state.pop(f"{name}.{side}") for name in layers for side in ("down", "up")}
    with torch.no_grad():
        for name, layer in layers.items():
            state[f"{name}.weight"] = layer.weight + SCALE * layer.up @ layer.down
    return {"model": state, "lora": thin}


def restore(model: Any, state: Mapping[str, Any]) -> None:
    """Put a checkpoint of the same run back; with LoRA the frozen weights are those that are there."""
    if "lora" in state:
        model.load_state_dict(state["lora"], strict=False)
    else:
        model.load_state_dict(state["model"])


def _layers(model: Any) -> Iterator[tuple[str, LoraLinear]]:
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLinear):
            yield name, layer
