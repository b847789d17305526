"""The device, the precision and the number of tokens per forward pass of a training step.

The weights that the optimizer updates, the optimizer's moments, and all sums are float32. Matrix products can run in
bfloat16, which is faster on GPUs and on some processors (docs/training.md has the figures). Because the precision
changes the result, it is part of the run's manifest.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Compute:
    """The device of a step, and the precision of its matrix products.

    `micro_tokens` is the maximum number of tokens per forward pass. It affects how much memory is used. Except for
    rounding, it does not affect the result.
    """

    device: str = "cpu"
    precision: Precision = "float32"
    micro_tokens: int = 2048

    @classmethod
    def on(cls, device: str, precision: Precision | None, micro_tokens: int) -> Compute:
        """Return a `Compute`. The default precision is bfloat16 on CUDA and float32 on a processor."""
        return cls(device, precision or ("bfloat16" if device == "cuda" else "float32"), micro_tokens)

    @property
    def dtype(self) -> torch.dtype:
        """The data type of matrix products."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context manager in which the model runs."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16")


FLOAT32 = Compute()
