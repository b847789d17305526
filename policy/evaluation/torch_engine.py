"""An engine for evaluation that runs the weights of a GGUF file in torch.

On a GPU and on a processor with AMX, torch evaluates long batches several times as fast as llama.cpp. The tokenizer,
the prompts, token healing, the batches and the readings are those of `policy.engine.worker`. The quantized weights are
converted to floating-point numbers. The logits differ from llama.cpp's only because llama.cpp also rounds activations.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention

from policy.engine.messages import ModelInfo, Trial, Tried
from policy.engine.settings import EngineSettings
from policy.engine.worker.batching import Row
from policy.engine.worker.completion_model import CompletionModel
from policy.engine.worker.llama import Llama, Outcome
from policy.training.base import load_for_reading
from policy.training.compute import Compute
from policy.training.running import keep_freed_memory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LANES = 16  # number of completions at the same time; each batch generates one token of each completion
BATCH = 1024  # maximum number of tokens of a prompt that are evaluated at a time


class TorchEngine:
    """Runs many completions concurrently, in this process. It has the interface of a supervisor and of its engine.

    `context_size` is the maximum number of tokens of one sequence. Raises `TrainingError` if the model's architecture
    is not supported in torch, and `ModelError` if llama.cpp cannot read the file.
    """

    def __init__(self, model: Path, budgets: Mapping[str, int], context_size: int, compute: Compute) -> None:
        keep_freed_memory()
        self.model = model
        self._completion_model = CompletionModel(TorchLlama(model, compute, LANES, context_size), "", budgets)
        self.info: ModelInfo | None = self._completion_model.info()

    async def engine(self) -> TorchEngine:
        """Return this engine."""
        return self

    async def try_all(self, trials: Sequence[Trial]) -> AsyncGenerator[tuple[int, Tried]]:
        """Yield the index in `trials` and the result of each trial, in the order in which they end."""
        for result in self._completion_model.try_all(trials):
            yield result
            await asyncio.sleep(0)  # so that the event loop can handle a signal, such as that of Ctrl-C

    async def close(self) -> None:
        """Do nothing. Python frees the memory together with this object."""


class TorchLlama(Llama):
    """A `Llama` whose tokens are evaluated by torch. llama.cpp provides the vocabulary and the metadata.

    The cache is two tensors, with the keys and the values of all sequences and layers. A batch is evaluated without
    padding: the tokens of all sequences are in one dimension, and only attention is computed sequence by sequence.
    """

    scored_at_once = 256
    block = 1  # torch's results differ between batches, with every block

    def __init__(self, path: Path, compute: Compute, sequences: int, context_size: int) -> None:
        model: Any = load_for_reading(path, compute)
        super().__init__(path, EngineSettings(context_size=256, threads=1))
        self._layers, self._norm, self._embed = model.model.layers, model.model.norm, model.model.embed_tokens
        self._rotary, self._head = model.model.rotary_emb, model.get_output_embeddings()
        self._compute = compute
        self.n_seq, self.n_batch, self.n_ubatch = sequences, BATCH, BATCH
        self.n_ctx_seq, self.n_ctx = context_size, sequences * context_size
        config = model.config
        width = config.hidden_size // config.num_attention_heads
        shape = (sequences, len(self._layers), config.num_key_value_heads, context_size, width)
        weight = self._head.weight
        self._keys = torch.zeros(shape, dtype=weight.dtype, device=weight.device)
        self._values = torch.zeros_like(self._keys)
        self._lengths = [0] * sequences
        self._wanted: list[int] = []  # the rows of the last batch that have logits
        self._logits: NDArray[np.float32]

    def decode(self, rows: Sequence[Row]) -> Outcome:
        """Evaluate `rows` and return "ok". The rows of each sequence must be adjacent."""
        with torch.inference_mode():
            spans = _spans(rows)
            device = self._keys.device
            hidden = self._embed(torch.tensor([row.token for row in rows], device=device))
            angles = self._rotary(hidden, torch.tensor([[row.pos for row in rows]], device=device))
            for number, layer in enumerate(self._layers):
                normed = layer.input_layernorm(hidden)
                hidden = hidden + self._attend(layer.self_attn, number, normed, angles, spans)
                hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
            self._wanted = [number for number, row in enumerate(rows) if row.logits]
            self._logits = self._head(self._norm(hidden[self._wanted])).float().cpu().numpy()
        for span in spans:
            self._lengths[span.seq] = span.pos + span.end - span.start
        return "ok"

    def _attend(
        self, attention: Any, number: int, hidden: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor],
        spans: Sequence[_Span],
    ) -> torch.Tensor:  # fmt: skip
        """Return the output of the attention of layer `number`, shape (tokens, width), and store keys and values.

        `hidden` is the input of the attention, with the same shape.
        """
        cosine, sine = (each[0][:, None] for each in angles)
        width = self._keys.shape[-1]

        def heads(projected: torch.Tensor) -> torch.Tensor:
            return projected.view(len(hidden), -1, width)

        query = _rotate(heads(attention.q_proj(hidden)), cosine, sine)
        key = _rotate(heads(attention.k_proj(hidden)), cosine, sine)
        value = heads(attention.v_proj(hidden))
        mixed = torch.empty_like(query)
        for seq, pos, start, end in spans:
            stop = pos + end - start
            keys, values = self._keys[seq, number, :, :stop], self._values[seq, number, :, :stop]
            keys[:, pos:] = key[start:end].transpose(0, 1)
            values[:, pos:] = value[start:end].transpose(0, 1)
            # Each token attends to the tokens of its sequence up to itself.
            seen = torch.ones(end - start, stop, dtype=torch.bool, device=hidden.device).tril(pos)
            mixed[start:end] = scaled_dot_product_attention(
                query[start:end].transpose(0, 1)[None], keys[None], values[None], attn_mask=seen, enable_gqa=True
            )[0].transpose(0, 1)
        output: torch.Tensor = attention.o_proj(mixed.flatten(1))
        return output

    def logits(self, row: int = -1) -> NDArray[np.float32]:
        """Return the logits after row `row` of the last batch, shape (n_vocab,).

        A negative `row` counts from the end, among the rows with logits only. Raises `ValueError` if the row has none.
        """
        logits: NDArray[np.float32] = self._logits[row if row < 0 else self._wanted.index(row)][: self.n_vocab]
        return logits

    def clear(self) -> None:
        """Remove all tokens from all sequences."""
        self._lengths = [0] * self.n_seq

    def end_of(self, seq: int) -> int:
        """Return the number of positions in sequence `seq`."""
        return self._lengths[seq]

    def truncate(self, seq: int, length: int) -> bool:
        """Keep only the first `length` positions of `seq`, and return True."""
        self._lengths[seq] = min(self._lengths[seq], max(length, 0))
        return True

    def copy(self, source: int, target: int, length: int) -> int:
        """Copy the first `length` positions of `source` to `target`. Return the new length of `target`."""
        self._keys[target, :, :, :length] = self._keys[source, :, :, :length]
        self._values[target, :, :, :length] = self._values[source, :, :, :length]
        self._lengths[target] = length
        return length


class _Span(NamedTuple):
    """The rows from `start` to `end` (exclusive) of a batch, which belong to sequence `seq` from position `pos` on."""

    seq: int
    pos: int
    start: int
    end: int


def _spans(rows: Sequence[Row]) -> list[_Span]:
    spans = []
    for seq, numbers in groupby(range(len(rows)), key=lambda number: rows[number].seq):
        own = list(numbers)
        spans.append(_Span(seq, rows[own[0]].pos, own[0], own[-1] + 1))
    return spans


def _rotate(vectors: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Apply rotary position embeddings to `vectors`, shape (tokens, heads, width).

    `cosine` and `sine` have the shape (tokens, 1, width).
    """
    first, second = vectors.chunk(2, dim=-1)
    return vectors * cosine + torch.cat((-second, first), dim=-1) * sine
