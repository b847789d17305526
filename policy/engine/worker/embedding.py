"""What the worker does with an embedding model: a vector for each text, several texts in one batch.

Texts do not know of each other, so each is a sequence of its own; how they are pooled is the model's affair (the mean
of the states where it does not say). What is longer than the model can take in is cut: the beginning of a chunk says
most about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from policy.engine.messages import ModelInfo
from policy.engine.worker.cache import Aborted
from policy.engine.worker.llama import Llama, Row
from policy.errors import EngineFailed
from policy.prompting.prompt import Budgets


class Embedder:
    """One embedding model."""

    def __init__(self, llama: Llama) -> None:
        self._llama = llama

    def info(self) -> ModelInfo:
        """What the server needs to know of the model."""
        metadata = self._llama.metadata
        return ModelInfo(
            name=metadata.get("general.name", "unnamed model"),
            layout="",
            selective=False,
            shrunk=False,
            budgets=Budgets(),
            context_size=self._llama.longest_text,
            gpu_offload=self._llama.gpu_offload,
            metadata={key: value for key, value in metadata.items() if not key.startswith("tokenizer.")},
        )

    def warm_up(self) -> None:
        """Embed a text, so that a build that crashes at its first evaluation does so now."""
        self.embed(["def warm_up():"])

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return a row a text. Raises `policy.engine.worker.cache.Aborted` when stopped from outside."""
        rows: list[NDArray[np.float32]] = []
        for batch in self._batches([self._tokens(text) for text in texts]):
            self._llama.clear()
            outcome = self._llama.decode(
                [
                    Row(token, at, seq, logits=True)
                    for seq, tokens in enumerate(batch)
                    for at, token in enumerate(tokens)
                ]
            )
            if outcome == "aborted":
                raise Aborted
            if outcome == "full":
                raise EngineFailed(f"a batch of {sum(map(len, batch))} tokens does not fit the context")
            rows += [self._llama.embedding(seq).copy() for seq in range(len(batch))]
        return np.stack(rows) if rows else np.empty((0, 0), np.float32)

    def _tokens(self, text: str) -> list[int]:
        """Return the tokens of a text, or of its beginning and its end; never none, since nothing has no vector."""
        tokens = self._llama.encode_whole(text) or self._llama.encode("\n")
        most = self._llama.longest_text
        return tokens if len(tokens) <= most else [*tokens[: most - 1], tokens[-1]]

    def _batches(self, texts: Sequence[list[int]]) -> Iterator[list[list[int]]]:
        batch: list[list[int]] = []
        size = 0
        for tokens in texts:
            if batch and (size + len(tokens) > self._llama.n_batch or len(batch) == self._llama.n_seq):
                yield batch
                batch, size = [], 0
            batch.append(tokens)
            size += len(tokens)
        if batch:
            yield batch
