"""Step 4, `train label`: complete each blank with and without retrieved chunks, to measure whether retrieval helps.

A blank is a place in a file from which text was removed. The adapted model completes each blank twice, greedily,
without and with the retrieved chunks. Blanks whose query contained the removed text are omitted, because serving never
has such hits. The label of a blank is the gain in edit similarity from retrieval. Also stored are -ln P of the truth
after both prompts, which is another measure of whether retrieval helps, and numbers that may predict the gain.

Output: `OUT/<split>.jsonl`, with one row per blank, in the order of the blanks. An interrupted run resumes after the
last row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from policy.evaluation.cutting import leading_lines, line_count
from policy.evaluation.similarity import canonical, edit_similarity
from policy.evaluation.statistics import auc
from policy.prompting.prompt import Budgets

from . import base as bases
from . import manifest
from .adapt import starting_point
from .blanks import Blank, eligible, load
from .compute import FLOAT32, Compute
from .examples import ExampleBuilder
from .loss import first_logits, nll
from .running import StopRequest, keep_freed_memory

SPLITS = ("valid", "train")
EXTRA_TOKENS = 8  # tokens by which a completion may be longer than the truth, so that the model can end it


@dataclass(frozen=True, slots=True)
class Label:
    """The measurements of one blank, without and with retrieved chunks.

    `es_*` are the edit similarities of the completions, in 0–100. `nll_*` are -ln P of the truth in nats, summed over
    its `tokens` tokens, which include the end token. `score` is the greatest score of a retrieved chunk. `entropy`
    (in nats) and `top` (the probability of the likeliest token) describe the distribution of the first token that is
    generated without chunks.
    """

    id: str
    kind: str
    es_without: float
    es_with: float
    nll_without: float
    nll_with: float
    tokens: int
    score: float
    entropy: float
    top: float

    @property
    def gain(self) -> float:
        """The gain in edit similarity from retrieval, in points."""
        return self.es_with - self.es_without


def run(
    out: Path,
    corpus: Path,
    blanks: Path,
    base: Path,
    trained: Path | None,
    limit: int = 0,
    valid_limit: int = 0,
    batch: int = 8,
    max_tokens: int = 96,
    splits: Sequence[str] = SPLITS,
    compute: Compute = FLOAT32,
    seed: int = 0,
) -> None:
    """Label up to `limit` training blanks and up to `valid_limit` validation blanks (0: all).

    The model is the checkpoint in the folder `trained`. If `trained` is None, the model is `base`, which `train export`
    must have written. `splits` has the splits to label: `finetune --label-kind own` needs only "valid". A resumed run
    may have more splits. Raises `TrainingError` if `out` contains another run.
    """
    start_arguments, weights = starting_point(trained, base)
    arguments = {"limit": limit, "valid_limit": valid_limit, "max_tokens": max_tokens, "precision": compute.precision,
                 "seed": seed, "adapted": start_arguments}  # fmt: skip
    inputs = {"blanks": blanks, "corpus": corpus, "base": base} | ({"trained": weights} if weights else {})
    manifest.begin(out, "label", inputs, arguments)
    keep_freed_memory()
    loaded = bases.load(base, weights=weights)
    model: Any = loaded.model.to(compute.device)
    model.eval()
    builder = ExampleBuilder(
        corpus, loaded, str(start_arguments["layout"]), Budgets(**start_arguments["budgets"]), max_middle=max_tokens
    )
    with StopRequest() as stop:
        for split in splits:
            wanted = limit if split == "train" else valid_limit
            data = eligible(load(blanks / f"{split}.jsonl"), wanted, seed)
            done = prepare_append(out / f"{split}.jsonl")
            bar = tqdm(total=len(data), initial=done, desc=f"label {split}", unit="blank")
            with (out / f"{split}.jsonl").open("a", encoding="utf-8") as file, bar:
                while done < len(data) and not stop.requested:
                    group = data[done : done + batch]
                    for label in label_group(model, builder, group, max_tokens, compute):
                        file.write(json.dumps(asdict(label)) + "\n")
                    file.flush()
                    done += len(group)
                    bar.update(len(group))
    if not stop.requested:
        manifest.finish(out, **{split: summary(load_labels(out / f"{split}.jsonl")) for split in splits})


def load_labels(path: Path) -> list[Label]:
    """Return the labels in a file, in order, without an incomplete last line."""
    return [Label(**row) for row in load_rows(path)]


def load_rows(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects in a file with one object per line. An incomplete last line is ignored."""
    complete, _, _ = path.read_text("utf-8").rpartition("\n") if path.is_file() else ("", "", "")
    return [json.loads(line) for line in complete.splitlines()]


def prepare_append(path: Path) -> int:
    """Remove an incomplete last line from a file. Return the number of complete lines, 0 for a missing file."""
    text = path.read_text("utf-8") if path.is_file() else ""
    complete = text[: text.rfind("\n") + 1]
    if complete != text:
        path.write_text(complete, "utf-8")
    return complete.count("\n")


def label_group(
    model: Any, builder: ExampleBuilder, group: Sequence[Blank], max_tokens: int, compute: Compute
) -> Iterator[Label]:
    """Yield the label of each blank in `group`. The blanks are completed in one batch.

    If the truth of a blank has too many tokens, `tokens` is 0 in the label, and all other measurements except `score`
    are NaN.
    """
    pairs = [(builder.build(blank, context=False), builder.build(blank, context=True)) for blank in group]
    kept = [(blank, *pair) for blank, pair in zip(group, pairs, strict=True) if pair[0] and pair[1]]
    plain = [without for _, without, _ in kept if without]
    retrieved = [with_ for _, _, with_ in kept if with_]
    values = nll(model, [*plain, *retrieved], compute) if kept else []
    first = first_logits(model, plain, compute) if kept else []
    prompts = [example.tokens[: example.middle] for example in [*plain, *retrieved]]
    limits = [len(example.tokens) - example.middle + EXTRA_TOKENS for example in [*plain, *retrieved]]
    completions = complete(model, prompts, builder, limits, compute)
    rows = {blank.id: row for row, (blank, _, _) in enumerate(kept)}
    nan = float("nan")
    for blank, (without, _) in zip(group, pairs, strict=True):
        row, score = rows.get(blank.id), max(hit.score for hit in blank.hits)
        if row is None or without is None:
            yield Label(blank.id, blank.kind, nan, nan, nan, nan, 0, score, nan, nan)
            continue
        truth = builder.text(blank)
        p = np.exp(first[row] - np.logaddexp.reduce(first[row]))
        yield Label(
            blank.id,
            blank.kind,
            _similarity(completions[row], truth),
            _similarity(completions[row + len(kept)], truth),
            round(values[row], 4),
            round(values[row + len(kept)], 4),
            len(without.tokens) - without.middle,
            score,
            round(float(-(p * np.log(np.maximum(p, 1e-12))).sum()), 4),
            round(float(p.max()), 4),
        )


@torch.no_grad()
def complete(
    model: Any, prompts: Sequence[Sequence[int]], builder: ExampleBuilder, limits: Sequence[int], compute: Compute
) -> list[str]:
    """Return the greedy completion of each prompt (token ids), up to the end token or `limits[i]` tokens."""
    if not prompts:
        return []
    longest = max(map(len, prompts))
    end = builder.base.end
    ids = torch.tensor([[end] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=compute.device)
    mask = torch.tensor(
        [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=compute.device
    )
    with compute.autocast():
        generated = model.generate(
            input_ids=ids.to(compute.device), attention_mask=mask.to(compute.device), max_new_tokens=max(limits),
            do_sample=False, eos_token_id=end, pad_token_id=end,
        )  # fmt: skip
    texts = []
    for row, limit in zip(generated[:, longest:].tolist(), limits, strict=True):
        tokens = row[: row.index(end)] if end in row else row
        tokens = tokens[:limit]  # `generate` used the greatest limit of the batch
        texts.append(builder.base.tokenizer.decode(tokens))
    return texts


def summary(labels: Sequence[Label]) -> dict[str, float]:
    """Return counts, mean similarities, and the AUC of three signals that may predict whether retrieval helps.

    `positive` is the share of the blanks at which retrieval raises edit similarity, and `negative` the share at which
    it lowers edit similarity. AUC, the area under the ROC curve, is how well a signal predicts the positive blanks.
    """
    rows = [label for label in labels if label.tokens]
    if not rows:
        return {"labels": 0}
    positive = [row.gain > 0 for row in rows]
    return {
        "labels": len(rows),
        "es_without": float(np.mean([row.es_without for row in rows])),
        "es_with": float(np.mean([row.es_with for row in rows])),
        "positive": float(np.mean(positive)),
        "negative": float(np.mean([row.gain < 0 for row in rows])),
        "auc_of_score": auc([row.score for row in rows], positive),
        "auc_of_entropy": auc([row.entropy for row in rows], positive),
        "auc_of_likelihood_gain": auc([row.nll_without - row.nll_with for row in rows], positive),
    }


def _similarity(completion: str, truth: str) -> float:
    """Return the edit similarity of the truth and the first lines of the completion, as many as the truth has.

    Indentation and blank lines are ignored. `policy.evaluation` does the same, except that it compares functions up to
    the end of their body.
    """
    return round(edit_similarity(canonical(leading_lines(completion, line_count(truth))), canonical(truth)), 3)
