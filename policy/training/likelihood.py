"""`train likelihood`: measure whether retrieved code makes the true texts likelier for the model in a GGUF file.

The rows are the data for an evidence gate (`train gate --measured`) of a model whose weights do not change, such as
Qwen2.5-Coder. Each row is one blank: a place in a file from which text, the truth, was removed. Retrieval helped at the
blank if it made the truth likelier (`policy.evaluation.table.has_helped`). Likelihoods are in nats: sums of -ln P of
the truth's tokens. The model generates nothing.

The prompts are the same as in serving: llama.cpp's tokenizer, and the layout and the budgets in the model's metadata.
The weights are dequantized and run in torch, which reads prompts several times as fast as llama.cpp on a GPU and on a
processor with AMX. The nats differ slightly from llama.cpp's, because llama.cpp also rounds activations.

Output: `OUT/likelihood.jsonl`, with one row per blank, and a manifest. An interrupted run resumes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from policy.completion.shape import Shaper
from policy.engine.settings import EngineSettings
from policy.engine.worker.llama import Llama
from policy.engine.worker.metadata import budgets_of, choose_layout
from policy.evaluation import resample
from policy.evaluation.retrieval import Retrieval
from policy.evaluation.table import has_helped
from policy.evaluation.task import KINDS, Data, Task
from policy.gating.evidence import Evidence, evidence
from policy.gating.gate import GateInputs, Scope
from policy.prompting.healing import left_to_write
from policy.prompting.prompt import Prompt, PromptBuilder

from . import base as bases
from . import manifest
from .compute import Compute
from .label import load_rows, prepare_append
from .loss import hidden_states
from .running import StopRequest, keep_freed_memory

FILE = "likelihood.jsonl"
MAX_TRUTH = 128  # maximum number of tokens to score; the first lines decide whether a suggestion is right
BLANK_KINDS = tuple(kind for kind in KINDS if kind != "quiet")  # quiet places have no truth to score


@dataclass(frozen=True, slots=True)
class Likelihood:
    """One row: the nats of a blank's truth without and with retrieved chunks, and the features that a gate can use.

    `nll_without` and `nll_with` are sums of -ln P, in nats, over the same `tokens` tokens: the healed word, the truth
    and the end token, or the first `MAX_TRUTH` of these. `first_p` is the greatest probability of a first token without
    context, and `first_entropy` the entropy (nats) of the first token's distribution. The other fields are as in
    `policy.evaluation.table.Row`.
    """

    id: str
    repository: str
    kind: str
    language: str
    scope: Scope
    score: float
    second: float
    names: int
    overlap: float
    first_p: float
    first_entropy: float
    nll_without: float
    nll_with: float
    tokens: int

    @property
    def helped(self) -> bool:
        """Whether retrieval made the truth likelier."""
        return has_helped(self.nll_without, self.nll_with)

    @property
    def gain(self) -> float:
        """The nats that retrieval saved."""
        return self.nll_without - self.nll_with

    @property
    def known(self) -> GateInputs:
        """The features that a gate can use."""
        found = Evidence(self.score, self.second, self.names, self.overlap)
        return GateInputs(self.scope, None, self.first_p, self.first_entropy, found)


@dataclass(frozen=True, slots=True)
class Score:
    """The likelihood of a text after a prompt: `nats` is the sum of -ln P over its `tokens` tokens.

    `first_p` is the probability of the likeliest first token after the prompt, and `first_entropy` the entropy (nats)
    of the first token's distribution.
    """

    nats: float
    tokens: int
    first_p: float
    first_entropy: float


def run(
    out: Path,
    corpus: Path,
    split: str,
    model: Path,
    blanks: int,
    compute: Compute,
    batch: int = 8,
    seed: int = 0,
) -> None:
    """Measure about `blanks` blanks of the repositories in `corpus/split`, `batch` blanks at a time.

    `model` is a GGUF file. Raises `TrainingError` if `out` holds another run, or if the architecture of the model is
    not supported.
    """
    arguments = {"split": split, "blanks": blanks, "precision": compute.precision, "seed": seed}
    manifest.begin(out, "likelihood", {"corpus": corpus, "model": model}, arguments)
    keep_freed_memory()
    scorer = Scorer(model, compute)
    data = resample.load(corpus.resolve() / split, blanks, BLANK_KINDS, seed)
    prepare_append(out / FILE)
    done = {row.id for row in load(out)}
    with (
        StopRequest() as stop,
        (out / FILE).open("a", encoding="utf-8") as file,
        tqdm(total=len(data.tasks), initial=len(done), desc="likelihood", unit="blank") as bar,
    ):
        for repository, tasks in _by_repository(data):
            retrieval = Retrieval({repository: data.repositories[repository]})
            todo = [task for task in tasks if task.id not in done]
            for at in range(0, len(todo), batch):
                if stop.requested:
                    return
                rows = list(_measure(scorer, retrieval, todo[at : at + batch]))
                file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)
                file.flush()
                bar.update(len(rows))
    rows = load(out)
    manifest.finish(out, blanks=len(rows), helped=sum(row.helped for row in rows) / max(1, len(rows)))


def load(folder: Path) -> list[Likelihood]:
    """Return the rows in the folder of a run, without an incomplete last line."""
    return [Likelihood(**row) for row in load_rows(folder / FILE)]


class Scorer:
    """A GGUF model in torch, with the tokenizer and the prompt builder of serving."""

    def __init__(self, model: Path, compute: Compute) -> None:
        self._llama = Llama(model, EngineSettings(context_size=256, threads=1))
        metadata, vocabulary = self._llama.metadata, self._llama.vocabulary()
        layout = choose_layout(metadata.get("repoformer.layout", ""), vocabulary)
        self.prompts = PromptBuilder(layout, vocabulary, self._llama, budgets_of(metadata))
        self._compute = compute
        self._model = load_model(model, compute)

    def score(self, prompts: Sequence[Prompt], truths: Sequence[str]) -> list[Score]:
        """Return the score of each truth after the prompt with the same index, all from one forward pass."""
        tails = [self._tail(prompt, truth) for prompt, truth in zip(prompts, truths, strict=True)]
        sequences = [[*prompt.tokens, *tail] for prompt, tail in zip(prompts, tails, strict=True)]
        with torch.no_grad(), self._compute.autocast():
            hidden = hidden_states(self._model, sequences, self._compute.device)
            scores = []
            for row, (prompt, tail) in enumerate(zip(prompts, tails, strict=True)):
                first = len(prompt.tokens) - 1
                logits = self._model.get_output_embeddings()(hidden[row, first : first + len(tail)])
                scores.append(self._score(logits.float().cpu().numpy(), tail, prompt.healed_text))
        return scores

    def _tail(self, prompt: Prompt, truth: str) -> list[int]:
        tokens = self._llama.encode(prompt.healed_text + truth)
        return tokens[:MAX_TRUTH] if len(tokens) >= MAX_TRUTH else [*tokens, self._llama.end]

    def _score(self, logits: np.ndarray[Any, np.dtype[np.float32]], tail: Sequence[int], healed: str) -> Score:
        """Return the score of the tokens `tail`, from the logits (tokens, vocabulary) at their positions.

        The first tokens have to spell the healed word `healed`. As in serving, their probabilities are taken only over
        the tokens that agree with that word.
        """
        expected, nats, first = healed.encode("utf-8", "replace"), 0.0, np.ones(1)
        for at, token in enumerate(tail):
            row = self._llama.index.mask(logits[at], expected).astype(np.float64)
            shifted = row - row.max()
            total = np.exp(shifted).sum()
            nats += float(np.log(total) - shifted[token])
            if at == 0:
                first = np.exp(shifted) / total
            expected = left_to_write(expected, self._llama.piece(token))
        likely = first[first > 0]
        return Score(nats, len(tail), float(first.max()), float(-(likely * np.log(likely)).sum()))


def load_model(path: Path, compute: Compute) -> Any:
    """Load the weights of a GGUF file into a transformers model, in the precision and on the device of `compute`.

    Raises `TrainingError` if the architecture is not supported.
    """
    model = bases.model_of(path)
    dtype = torch.bfloat16 if compute.precision == "bfloat16" else torch.float32
    return model.to(device=compute.device, dtype=dtype).eval()


def _measure(scorer: Scorer, retrieval: Retrieval, tasks: Sequence[Task]) -> Iterator[Likelihood]:
    hits = [retrieval.find(task)[0] for task in tasks]
    plain = [scorer.prompts.without_context(task.cursor) for task in tasks]
    retrieved = [
        scorer.prompts.with_context(task.cursor, [hit.chunk for hit in found])
        for task, found in zip(tasks, hits, strict=True)
    ]
    truths = [task.truth for task in tasks]
    scores = zip(scorer.score(plain, truths), scorer.score(retrieved, truths), strict=True)
    for task, found, (without, with_) in zip(tasks, hits, scores, strict=True):
        known = evidence(task.cursor, found)
        yield Likelihood(
            id=task.id,
            repository=task.repository,
            kind=task.kind,
            language=task.cursor.language,
            scope=Shaper(task.cursor).scope,
            score=known.best,
            second=known.second,
            names=known.names,
            overlap=known.overlap,
            first_p=without.first_p,
            first_entropy=without.first_entropy,
            nll_without=without.nats,
            nll_with=with_.nats,
            tokens=without.tokens,
        )


def _by_repository(data: Data) -> Iterator[tuple[str, list[Task]]]:
    """Yield each repository with its tasks. The caller then needs only one index in memory at a time."""
    ordered = sorted(data.tasks, key=lambda task: task.repository)
    for repository, tasks in groupby(ordered, key=lambda task: task.repository):
        yield repository, list(tasks)
