"""`train likelihood`: measure whether retrieved code makes the true texts likelier for the model in a GGUF file.

The rows are labels for the gate of a model whose weights stay as they are, such as Qwen2.5-Coder. A blank counts as
helped if the truth becomes likelier (`policy.evaluation.table.has_helped`), so nothing is generated.

The prompts are those of serving: llama.cpp's tokenizer, and the layout and the budgets of the model's card. The weights
are dequantised and run in torch, which reads prompts several times as fast as llama.cpp on a GPU and on a processor
with AMX. The nats differ from llama.cpp's by its rounding of activations.

Output: `OUT/likelihood.jsonl`, a row per blank, and a manifest. An interrupted run resumes.
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
MAX_TRUTH = 128  # tokens of a truth that are scored; the first lines decide whether a suggestion is right
BLANK_KINDS = tuple(kind for kind in KINDS if kind != "quiet")  # a quiet place has no truth


@dataclass(frozen=True, slots=True)
class Likelihood:
    """The nats of a blank's truth without and with retrieved chunks, and what is known at decision time.

    The nats are sums over `tokens` tokens, the healed word and the end token included. `first_p` (probability) and
    `first_entropy` (nats) describe the first token without context. The other fields are as in
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
    """The nats of a text of `tokens` tokens after a prompt, and the probability and entropy (nats) of the first."""

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
    """Measure about `blanks` blanks of the repositories in `corpus`/`split`, in `batch` at a time.

    Raises `TrainingError` if `out` holds another run, or if the model's architecture cannot be read.
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
    """Read the rows of a run. An incomplete last line is ignored."""
    return [Likelihood(**row) for row in load_rows(folder / FILE)]


class Scorer:
    """A GGUF model in torch, with the tokenizer and the prompts that serve it."""

    def __init__(self, model: Path, compute: Compute) -> None:
        self._llama = Llama(model, EngineSettings(context_size=256, threads=1))
        metadata, vocabulary = self._llama.metadata, self._llama.vocabulary()
        layout = choose_layout(metadata.get("repoformer.layout", ""), vocabulary)
        self.prompts = PromptBuilder(layout, vocabulary, self._llama, budgets_of(metadata))
        self._compute = compute
        self._model = bases.load_for_reading(model, compute)

    def score(self, prompts: Sequence[Prompt], truths: Sequence[str]) -> list[Score]:
        """Score each truth after its prompt, all in one forward pass."""
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
        """Score `tail` on `logits` (tokens, vocabulary). The healed word is scored as serving restricts it."""
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
    """Yield the tasks by repository, so that one index at a time is in memory."""
    ordered = sorted(data.tasks, key=lambda task: task.repository)
    for repository, tasks in groupby(ordered, key=lambda task: task.repository):
        yield repository, list(tasks)
