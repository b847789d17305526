"""Embedding models in the worker: one vector for each text, with several texts in one batch.

Each text is a separate sequence. The model's metadata says how the states of a text's tokens become one vector
(without an entry: by their mean). If a text is longer than the model's context, only its beginning is used, because the
beginning of a chunk says most about the chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from policy.engine.messages import ModelInfo
from policy.engine.worker.batching import Row
from policy.engine.worker.cache import Aborted
from policy.engine.worker.llama import Llama
from policy.errors import EngineFailed
from policy.prompting.prompt import Budgets

# The maximum number of tokens of a batch with several texts. Attention multiplies every token of a batch with every
# other one, also those of other texts, so its cost grows with the square of this number.
_BATCH_TOKENS = 256


class Embedder:
    """One embedding model."""

    def __init__(self, llama: Llama) -> None:
        self._llama = llama

    def info(self) -> ModelInfo:
        """Return the information about the model for the server."""
        return ModelInfo(
            name=self._llama.name,
            layout="",
            selective=False,
            shrunk=False,
            budgets=Budgets(),
            context_size=self._llama.longest_text,
            gpu_offload=self._llama.gpu_offload,
            metadata=self._llama.metadata,
        )

    def warm_up(self) -> None:
        """Embed a text, so that a build of llama.cpp that crashes on this machine does so now."""
        self.embed(["def warm_up():"])

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one vector per text, shape (texts, dimensions). Raises `policy.engine.worker.cache.Aborted`."""
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
                raise EngineFailed(f"a batch of {sum(map(len, batch))} tokens does not fit into the context")
            rows += [self._llama.embedding(seq).copy() for seq in range(len(batch))]
        return np.stack(rows) if rows else np.empty((0, 0), np.float32)

    def _tokens(self, text: str) -> list[int]:
        """Return the tokens of a text: the first ones if there are too many, then the token that marks the text's end.

        An empty text gets at least one token, because llama.cpp computes no vector without tokens.
        """
        tokens = self._llama.encode_whole(text) or self._llama.encode("\n")
        most = self._llama.longest_text
        return tokens if len(tokens) <= most else [*tokens[: most - 1], tokens[-1]]

    def _batches(self, texts: Sequence[list[int]]) -> Iterator[list[list[int]]]:
        most = min(_BATCH_TOKENS, self._llama.n_batch)
        batch: list[list[int]] = []
        size = 0
        for tokens in texts:
            if batch and (size + len(tokens) > most or len(batch) == self._llama.n_seq):
                yield batch
                batch, size = [], 0
            batch.append(tokens)
            size += len(tokens)
        if batch:
            yield batch
