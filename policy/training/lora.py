"""LoRA (Hu et al., 2021): train a low-rank difference for each weight matrix instead of the matrix itself.

Each linear layer gets two matrices, `down` (rank, in) and `up` (out, rank), where `up` is zero at first. The layer then
computes W x + 2 up (down x). All other parameters are frozen, including embeddings and norms. A checkpoint has the
merged weights under their usual names, so that `export`, `label` and later runs need no LoRA code. A checkpoint also
has the low-rank matrices, from which the same run resumes bit for bit.

The library `peft` is not used, because it would rename the tensors in checkpoints. The trade-off: there is no dropout,
there is only one scale, and either all linear layers have a difference or none.
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
    """Freeze `model`, and add trainable differences to its linear layers, except the output layer.

    The output layer shares its weights with the embedding.
    """
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    for layer in linear_layers(model):
        out, width = layer.weight.shape
        down = torch.randn(rank, width, generator=generator) / math.sqrt(width)
        layer.__class__ = LoraLinear
        layer.down = torch.nn.Parameter(down.to(layer.weight.device))
        layer.up = torch.nn.Parameter(torch.zeros(out, rank, device=layer.weight.device))


def linear_layers(model: Any) -> list[Any]:
    """Return the linear layers of a model, except the output layer, which shares its weights with the embedding."""
    output = model.get_output_embeddings()
    return [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear) and layer is not output]


def state_of(model: Any) -> dict[str, Any]:
    """Return the content of a checkpoint: the weights (`model`), and, with LoRA, the low-rank matrices (`lora`).

    With LoRA, the weights include the low-rank differences.
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
    """Load a checkpoint of the same run into `model`.

    With LoRA, only the low-rank matrices are loaded, because the frozen weights of `model` already have the right
    values.
    """
    if "lora" in state:
        model.load_state_dict(state["lora"], strict=False)
    else:
        model.load_state_dict(state["model"])


def _layers(model: Any) -> Iterator[tuple[str, LoraLinear]]:
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLinear):
            yield name, layer
