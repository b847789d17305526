"""Where a step computes, in which precision, and how much at a time.

Master weights, moments and sums are float32 everywhere. Matrices may be multiplied in bfloat16: always right on a GPU,
and on processors whose bfloat16 is faster than their float32, which is not all that have the instructions (AMD Zen 4
gains a factor of 2.5, an Intel processor without AMX lost a half: `docs/LOG.md`). So it is a choice, and part of what
makes a run what it is.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Compute:
    """`micro_tokens` is how many tokens go through the model at a time: a matter of memory, not of the result."""

    device: str = "cpu"
    precision: Precision = "float32"
    micro_tokens: int = 2048

    @classmethod
    def on(cls, device: str, precision: Precision | None, micro_tokens: int) -> Compute:
        """With the precision that is right for most machines where none was asked for."""
        return cls(device, precision or ("bfloat16" if device == "cuda" else "float32"), micro_tokens)

    @property
    def dtype(self) -> torch.dtype:
        """What matrices are multiplied in."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which the model is run."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16")


FLOAT32 = Compute()
