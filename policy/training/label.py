"""Step 4, `train label`: would retrieval have helped here? The adapted model's own completions say so.

Each blank is completed twice, greedily, without and with what retrieval found (never with the oracle's hits: at
serving time nobody knows the answer). The label is the gain in edit similarity, kept as a number. Beside it stand the
log-likelihoods of the true text both ways, a second and cheaper signal, and what a gate may look at. Rows are
appended in the order of the blanks, so an interrupted run goes on where it stopped.

Output: `OUT/<split>.jsonl`, a row a blank.
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
from .adapt import start_of
from .blanks import Blank, eligible, load
from .compute import FLOAT32, Compute
from .examples import ExampleBuilder
from .loss import first_logits, nll
from .running import StopRequest, quick_memory

SPLITS = ("valid", "train")
SPARE = 8  # tokens a completion may be longer than the truth: it has to end by itself


@dataclass(frozen=True, slots=True)
class Label:
    """What two completions of a blank came to.

    `es_*` in 0–100, `nll_*` summed nats over `tokens` tokens (the end included). `score` is the greatest similarity of
    a chunk; `entropy` (nats) and `top` (probability of the likeliest token) are of the first generated token without
    context.
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
        """How much retrieval raised edit similarity."""
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
    """Label up to `limit` training and `valid_limit` validation blanks (0: all) that were not retrieved by oracle.

    The completions are those of the checkpoint in `trained`, or of the base itself where an earlier `export` wrote it.
    `splits` narrows it to one: a model that judges its own training blanks (`finetune --label-kind own`) needs labels
    for validation alone. More splits than before are no difference.
    """
    told, weights = start_of(trained, base)
    arguments = {"limit": limit, "valid_limit": valid_limit, "max_tokens": max_tokens, "precision": compute.precision,
                 "seed": seed, "adapted": told}  # fmt: skip
    inputs = {"blanks": blanks, "corpus": corpus, "base": base} | ({"trained": weights} if weights else {})
    manifest.begin(out, "label", inputs, arguments)
    quick_memory()
    loaded = bases.load(base, weights=weights)
    model: Any = loaded.model.to(compute.device)
    model.eval()
    builder = ExampleBuilder(corpus, loaded, str(told["layout"]), Budgets(**told["budgets"]), max_middle=max_tokens)
    with StopRequest() as stop:
        for split in splits:
            wanted = limit if split == "train" else valid_limit
            data = eligible(load(blanks / f"{split}.jsonl"), wanted, seed)
            done = take_up(out / f"{split}.jsonl")
            bar = tqdm(total=len(data), initial=done, desc=f"label {split}", unit="blank")
            with (out / f"{split}.jsonl").open("a", encoding="utf-8") as file, bar:
                while done < len(data) and not stop.asked:
                    group = data[done : done + batch]
                    for label in label_group(model, builder, group, max_tokens, compute):
                        file.write(json.dumps(asdict(label)) + "\n")
                    file.flush()
                    done += len(group)
                    bar.update(len(group))
    if not stop.asked:
        manifest.finish(out, **{split: summary(load_labels(out / f"{split}.jsonl")) for split in splits})


def load_labels(path: Path) -> list[Label]:
    """The labels in a file, in its order; a row that an interrupt cut off is none."""
    whole, _, _ = path.read_text("utf-8").rpartition("\n") if path.is_file() else ("", "", "")
    return [Label(**json.loads(line)) for line in whole.splitlines()]


def take_up(path: Path) -> int:
    """Make a file ready to append to, a row that an interrupt cut off taken away; returns how many labels it has."""
    text = path.read_text("utf-8") if path.is_file() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, "utf-8")
    return whole.count("\n")


def label_group(
    model: Any, builder: ExampleBuilder, group: Sequence[Blank], max_tokens: int, compute: Compute
) -> Iterator[Label]:
    """Labels of a few blanks, computed together. A blank longer than `max_tokens` gets a row with NaN similarity."""
    pairs = [(builder.build(blank, context=False), builder.build(blank, context=True)) for blank in group]
    kept = [(blank, *pair) for blank, pair in zip(group, pairs, strict=True) if pair[0] and pair[1]]
    plain = [without for _, without, _ in kept if without]
    rich = [with_ for _, _, with_ in kept if with_]
    values = nll(model, [*plain, *rich], compute) if kept else []
    first = first_logits(model, plain, compute) if kept else []
    prompts = [example.tokens[: example.middle] for example in [*plain, *rich]]
    most = [len(example.tokens) - example.middle + SPARE for example in [*plain, *rich]]
    made = complete(model, prompts, builder, most, compute)
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
            _similarity(made[row], truth),
            _similarity(made[row + len(kept)], truth),
            round(values[row], 4),
            round(values[row + len(kept)], 4),
            len(without.tokens) - without.middle,
            score,
            round(float(-(p * np.log(np.maximum(p, 1e-12))).sum()), 4),
            round(float(p.max()), 4),
        )


@torch.no_grad()
def complete(
    model: Any, prompts: Sequence[Sequence[int]], builder: ExampleBuilder, most: Sequence[int], compute: Compute
) -> list[str]:
    """Greedy completions of at most `most` tokens each, up to the end token; prompts are padded on the left."""
    if not prompts:
        return []
    longest = max(map(len, prompts))
    end = builder.base.end
    ids = torch.tensor([[end] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=compute.device)
    mask = torch.tensor(
        [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=compute.device
    )
    with compute.autocast():
        made = model.generate(
            input_ids=ids.to(compute.device), attention_mask=mask.to(compute.device), max_new_tokens=max(most),
            do_sample=False, eos_token_id=end, pad_token_id=end,
        )  # fmt: skip
    texts = []
    for row, limit in zip(made[:, longest:].tolist(), most, strict=True):
        tokens = row[: row.index(end)] if end in row else row
        tokens = tokens[:limit]  # what is cut off here depends on the blank alone, not on its neighbours
        texts.append(builder.base.tokenizer.decode(tokens))
    return texts


def summary(labels: Sequence[Label]) -> dict[str, float]:
    """Counts, mean similarities, and how well likelihood and similarity of the best chunk foretell the gain."""
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


def _similarity(made: str, truth: str) -> float:
    """Edit similarity of as many lines as the truth has, without their indentation.

    The evaluation does the same, but for functions, which count there up to where their body ends.
    """
    return round(edit_similarity(canonical(leading_lines(made, line_count(truth))), canonical(truth)), 3)
