"""Quantization-aware training: the model learns with the rounded weights that serving uses.

Rounding to four bits after training costs a small model much of its quality (docs/experiments.md, section 9). In
quantization-aware training, the forward and backward pass of each step use the rounded weights, as the exported file
will have them. The update is applied to the exact weights (the straight-through estimator of Bengio et al., 2013, arXiv
1308.3432). Weights do not change within a step, so they are rounded once per step, which takes about a second.

The module rounds the weights that llama.cpp rounds to four bits: the matrices of the linear layers. It rounds neither
the embedding, which is also the output layer and has eight bits in the file, nor the norms, which the file has exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from .lora import linear_layers

BLOCK = 32  # number of adjacent weights of a row that share a scale


def q4_0(weight: torch.Tensor) -> torch.Tensor:
    """Return `weight`, shape (rows, columns), rounded as GGML's type Q4_0: 4 bits per weight and one scale per block.

    The number of columns is a multiple of 32, the size of a block. The value with the largest magnitude in a block gets
    the code -8, so that this value is exact up to the rounding of the scale. Source: ggml-quants.c,
    `quantize_row_q4_0_ref`.
    """
    blocks = weight.float().reshape(-1, BLOCK)
    extreme = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
    scale = extreme / -8
    inverse = torch.where(scale == 0, torch.zeros_like(scale), 1 / scale)
    codes = (blocks * inverse).add_(8.5).floor_().clamp_(0, 15).sub_(8)
    return codes.mul_(scale.half().float()).reshape(weight.shape).to(weight.dtype)


ROUNDINGS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {"Q4_0": q4_0}


@contextmanager
def rounded(model: Any, type_: str | None) -> Iterator[None]:
    """Inside the `with` block, give the linear layers of `model` the weights that a file of `type_` would have.

    With the type None, nothing changes. The exact weights are restored at the end of the block.
    """
    if type_ is None:
        yield
        return
    with torch.no_grad():
        exact = [(layer.weight, layer.weight.data) for layer in linear_layers(model)]
        for parameter, data in exact:
            parameter.data = ROUNDINGS[type_](data)
    try:
        yield
    finally:
        for parameter, data in exact:
            parameter.data = data
