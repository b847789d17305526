"""Step 5, `train finetune`: teach the model to decide without losing its ability to fill in.

The loss is the sum of two separate means (paper, section 4.2). One is the cross-entropy of the decision, times λ: its
target is `<cc>` or `<fim_middle>`, at the position after `<eof>`. The other is the cross-entropy of the truth's tokens,
on the branch that the label selects. With a single mean over all these tokens, the decision would be only one of about
forty tokens, and P(`<cc>`) would fall to nearly 0 everywhere.

After every `validate_every` steps, the decisions are checked on validation blanks. `train label` has measured two
completions of each of these blanks, without and with retrieved chunks. A check computes the AUC (area under the ROC
curve) of P(`<cc>`), and the edit similarity of the completions that the decisions select. The run stops if neither
figure has risen for `patience` checks. It keeps the weights of the check with the best edit similarity. Then a gate is
fitted on the validation blanks: a logistic function from P(`<cc>`) to the probability that retrieval helps, with one
threshold for lines and one for blocks. The gate is stored in the manifest, and later in the exported model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from policy.evaluation.statistics import auc, calibration_error
from policy.gating.gate import GateInputs
from policy.prompting.prompt import Budgets

from . import base as bases
from . import lora, manifest
from .adapt import append_metrics, epoch_order, history, restore, save, starting_point
from .blanks import Blank, eligible, load
from .compute import FLOAT32, Compute
from .examples import Example, ExampleBuilder, micro_batches
from .fitting import MAX_RETRIEVAL_SHARE, best_threshold, fit_gate
from .label import Label, load_labels
from .loss import Losses, Weights, backward, backward_own_labels, hidden_states
from .probes import Probe
from .probes import read as read_probes
from .rounding import rounded
from .running import StopRequest, keep_freed_memory

BEST = "best.pt"
LabelKind = Literal["similarity", "likelihood", "own"]
Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True)
class LabeledBlank:
    """A blank with its label."""

    blank: Blank
    label: Label


def run(
    out: Path,
    corpus: Path,
    blanks: Path,
    labels: Path,
    base: Path,
    trained: Path | None,
    decision_weight: float = 1.0,
    positive_weight: float = 1.0,
    label_kind: LabelKind = "similarity",
    least_gain: float = 0.0,
    least_share: float = 0.0,
    left_weight: float = 0.0,
    limit: int = 0,
    probes: Path | None = None,
    epochs: float = 2.0,
    batch: int = 16,
    lr: float = 2e-5,
    validate_every: int = 50,
    patience: int = 6,
    lora_rank: int = 0,
    freeze_embedding: bool = False,
    rounding: str | None = None,
    save_minutes: float = 10.0,
    compute: Compute = FLOAT32,
    seed: int = 0,
) -> None:
    """Fine-tune from the checkpoint in `trained` on `limit` blanks (0: all). `decision_weight` is the paper's λ.

    Without `trained`, training starts from the base itself, which must be a model that an earlier `export` wrote.

    `positive_weight` is the weight of decisions to retrieve. If fewer than a third of the decisions are to retrieve,
    `<cc>` is rarely the likeliest token of a small model. The weight raises P(`<cc>`) but does not change how P(`<cc>`)
    ranks the blanks.

    `label_kind` says how to determine whether retrieval helps at a blank. With "similarity", retrieval has to raise
    edit similarity by more than `least_gain` points. With "likelihood", retrieval has to lower -ln P of the truth by
    more than `least_gain` nats, and by more than the share `least_share` of -ln P without chunks. "own" is like
    "likelihood", but -ln P comes from the model during training. Then no training labels are needed, the model learns
    to complete on both branches, and it also learns the decisions at `probes` (the artifact of `train probes`). Without
    validation labels, the last weights are kept, and the gates have to be fitted by `export --evaluated`.

    If `lora_rank` is not 0, the weights are frozen and low-rank differences are trained (`policy.training.lora`). With
    `freeze_embedding`, the embedding does not change. With `rounding` (a GGUF type such as Q4_0), training uses rounded
    weights (`policy.training.rounding`).

    Raises `TrainingError` if `lora_rank` and `rounding` are combined, if there are no labels, or if `out` holds another
    run.
    """
    if lora_rank and rounding:
        raise manifest.TrainingError("--rounding trains all weights and cannot be combined with --lora-rank")
    start_arguments, checkpoint = starting_point(trained, base)
    arguments = {
        "decision_weight": decision_weight, "label_kind": label_kind, "least_gain": least_gain, "epochs": epochs,
        "batch": batch, "lr": lr, "left_weight": left_weight, "limit": limit, "precision": compute.precision,
        "seed": seed, "layout": start_arguments["layout"], "budgets": start_arguments["budgets"],
    }  # fmt: skip
    optional = {"lora_rank": lora_rank, "freeze_embedding": freeze_embedding, "rounding": rounding,
               "least_share": least_share}  # fmt: skip
    arguments |= {name: value for name, value in optional.items() if value}
    if positive_weight != 1:
        arguments["positive_weight"] = positive_weight
    inputs = {"blanks": blanks, "base": base} | ({"probes": probes} if probes else {})
    inputs |= {"trained": checkpoint} if checkpoint else {}
    # The inputs are the files with labels and not the artifact of `train label`, which may be unfinished. With "own",
    # training labels are not needed.
    if label_kind != "own":
        inputs |= {"labels": labels / "train.jsonl", "validation labels": labels / "valid.jsonl"}
    elif (labels / "valid.jsonl").is_file():
        inputs |= {"validation labels": labels / "valid.jsonl"}
    manifest.begin(out, "finetune", inputs, arguments)
    keep_freed_memory()
    loaded = bases.load(base, weights=checkpoint)
    model: Any = loaded.model.to(compute.device)
    model.train()
    if freeze_embedding:
        model.get_input_embeddings().requires_grad_(False)
    if lora_rank:
        lora.attach(model, lora_rank, seed)
    builder = ExampleBuilder(corpus, loaded, str(start_arguments["layout"]), Budgets(**start_arguments["budgets"]))
    valid = labeled_blanks(blanks / "valid.jsonl", labels / "valid.jsonl", 0, seed)
    train_step: Callable[[int], tuple[Losses, float]]
    if label_kind == "own":
        own_blanks = eligible(load(blanks / "train.jsonl"), limit, seed)
        probes_by_blank = read_probes(probes / "train.jsonl") if probes else {}
        count = len(own_blanks)

        def train_step(step: int) -> tuple[Losses, float]:
            pairs = pairs_of(builder, own_blanks, probes_by_blank, step, batch, seed)
            cc = loaded.vocabulary.ids["cc"]

            def is_positive(without: float, with_: float) -> bool:
                return likelier(without, with_, least_gain, least_share)

            return backward_own_labels(model, pairs, weights, is_positive, cc, compute)
    else:
        train = labeled_blanks(blanks / "train.jsonl", labels / "train.jsonl", limit, seed)
        count = len(train)

        def train_step(step: int) -> tuple[Losses, float]:
            chosen = entries_of(train, step, batch, seed)
            positives = [helpful(entry.label, label_kind, least_gain, least_share) for entry in chosen]
            examples = [example for entry, positive in zip(chosen, positives, strict=True)
                        for example in builder.build_labeled(entry.blank, positive=positive)]  # fmt: skip
            return backward(model, examples, weights, compute), sum(positives) / len(positives)

    if not count or not (valid or label_kind == "own"):
        raise manifest.TrainingError(f"no labels in {labels}: run `train label` first")
    steps = max(1, round(epochs * count / batch))
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=lr, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    step = restore(out, model, optimizer)
    if step == 0:
        (out / BEST).unlink(missing_ok=True)  # may be left from a run that ended before its first checkpoint
    saved = time.monotonic()
    warmup = max(1, min(50, steps // 10))
    weights = Weights(left_weight, decision_weight, {loaded.vocabulary.ids["cc"]: positive_weight})
    with StopRequest() as stop, tqdm(total=steps, initial=step, desc="finetune", unit="step") as bar:
        while step < steps and not stop.requested and not has_stalled(history(out), patience):
            for group in optimizer.param_groups:
                group["lr"] = lr * min(1.0, (step + 1) / warmup) * (1 - step / steps)
            optimizer.zero_grad(set_to_none=True)
            with rounded(model, rounding):
                losses, positive = train_step(step)
            torch.nn.utils.clip_grad_norm_(learning, 1.0)
            optimizer.step()
            step += 1
            row: dict[str, float] = {
                "step": step,
                "middle": losses.middle,
                "decision": losses.decision,
                "positive": positive,
            }
            if valid and (step % validate_every == 0 or step == steps):
                with rounded(model, rounding):
                    row |= check(p_retrieve(model, builder, valid, compute), valid)
                if row["selected"] >= max((past["selected"] for past in history(out) if "selected" in past), default=0):
                    save(out, model, optimizer, step, name=BEST)
            append_metrics(out, row)
            bar.update()
            bar.set_postfix(decision=f"{losses.decision:.3f}")
            if stop.requested or step == steps or time.monotonic() - saved > 60 * save_minutes:
                save(out, model, optimizer, step)
                saved = time.monotonic()
    if stop.requested:
        return
    if not valid:
        manifest.finish(out, steps=step, counts={"train": count})
        return
    lora.restore(model, torch.load(out / BEST, map_location="cpu", weights_only=True, mmap=True))
    with rounded(model, rounding):
        p = p_retrieve(model, builder, valid, compute)
    known = [GateInputs("block" if entry.label.kind == "function" else "line", value)
             for entry, value in zip(valid, p, strict=True)]  # fmt: skip
    gate = fit_gate("token", ["token"], known, [entry.label.gain for entry in valid], MAX_RETRIEVAL_SHARE)
    counts = {"train": count, "valid": len(valid)}
    manifest.finish(out, steps=step, counts=counts, metrics=check(p, valid), gates=[asdict(gate)])


def labeled_blanks(blanks: Path, labels: Path, limit: int, seed: int) -> list[LabeledBlank]:
    """Return up to `limit` blanks (0: all) that have a usable label, in a fixed random order."""
    known = {
        label.id: label for label in reversed(load_labels(labels)) if label.tokens
    }  # if an id has several labels, the first one counts
    labeled = [blank for blank in load(blanks) if blank.id in known]
    return [LabeledBlank(blank, known[blank.id]) for blank in eligible(labeled, limit, seed)]


def helpful(label: Label, kind: LabelKind, least_gain: float, least_share: float) -> bool:
    """Return whether a label is positive: retrieval helped at its blank.

    With the kind "similarity", as in the paper, retrieval has to raise edit similarity by more than `least_gain`
    points. With any other kind, it has to make the truth likelier (see `likelier`).
    """
    if kind == "similarity":
        return label.gain > least_gain
    return likelier(label.nll_without, label.nll_with, least_gain, least_share)


def likelier(without: float, with_: float, least_gain: float, least_share: float) -> bool:
    """Return whether retrieved chunks make a truth likelier.

    `without` and `with_` are -ln P of the truth in nats, without and with the chunks. The chunks have to lower -ln P by
    more than `least_gain` nats, and by more than the share `least_share` of `without`. For a short truth, `least_gain`
    is the limit that matters. Almost any chunks lower -ln P of ten lines by two nats, so for a long truth the required
    decrease has to grow with `without`.
    """
    gain = without - with_
    return gain > least_gain and (not least_share or gain > least_share * without)


def entries_of(data: Sequence[Entry], step: int, size: int, seed: int) -> list[Entry]:
    """Return the `size` entries of one step. Each epoch has its own order of the entries."""
    positions = (divmod(number, len(data)) for number in range(step * size, (step + 1) * size))
    return [data[epoch_order(len(data), epoch, seed)[position]] for epoch, position in positions]


def pairs_of(
    builder: ExampleBuilder,
    data: Sequence[Blank],
    probes: Mapping[str, Sequence[Probe]],
    step: int,
    size: int,
    seed: int,
) -> list[tuple[Example, Example]]:
    """Return a pair of examples for each blank of one step: without chunks (with decision and probes), with chunks."""
    pairs = []
    for blank in entries_of(data, step, size, seed):
        plain, retrieved = builder.build_labeled(blank, positive=False), builder.build(blank, context=True)
        if plain and retrieved:
            pairs.append((builder.add_probes(plain[0], blank, probes.get(blank.id, ())), retrieved))
    return pairs


@torch.no_grad()
def p_retrieve(model: Any, builder: ExampleBuilder, data: Sequence[LabeledBlank], compute: Compute) -> list[float]:
    """Return P(`<cc>`) after `<eof>` for each blank, as a probability over the whole vocabulary."""
    model.eval()
    asked = [builder.prompts.decide(builder.cursor(entry.blank)).tokens for entry in data]
    examples = [Example(tokens, len(tokens), 0, 0) for tokens in asked]
    found: dict[int, float] = {}
    for group in micro_batches(examples, compute.micro_tokens):
        with compute.autocast():
            hidden = hidden_states(model, [example.tokens for example in group], compute.device)
        table = model.get_output_embeddings().weight
        for row, example in enumerate(group):
            logits = hidden[row, len(example.tokens) - 1].float() @ table.float().T
            found[id(example)] = float(torch.softmax(logits, 0)[builder.base.vocabulary.ids["cc"]])
    model.train()
    return [found[id(example)] for example in examples]


def check(p: Sequence[float], data: Sequence[LabeledBlank]) -> dict[str, float]:
    """Return the validation metrics: AUC and calibration error of P(`<cc>`), and edit similarity of three policies.

    The policies are `never`, `always` and `selected`. `selected` retrieves if `p` is above a threshold. Of
    the thresholds that retrieve for at most the share `MAX_RETRIEVAL_SHARE` of the blanks, it is the one with the
    greatest total gain. The metric `share` is the share of the blanks for which `selected` retrieves.
    """
    gains = np.array([entry.label.gain for entry in data])
    without = float(np.mean([entry.label.es_without for entry in data]))
    threshold = best_threshold(p, gains.tolist(), MAX_RETRIEVAL_SHARE)
    chosen = np.asarray(p) > threshold
    return {
        "auc": auc(p, gains > 0),
        "calibration_error": calibration_error(p, gains > 0),
        "never": without,
        "always": without + float(gains.mean()),
        "selected": without + float((gains * chosen).mean()),
        "share": float(chosen.mean()),
    }


def has_stalled(rows: Sequence[Mapping[str, float]], patience: int) -> bool:
    """Return whether neither AUC nor the selected edit similarity rose in the last `patience` checks."""
    checks = [row for row in rows if "selected" in row]
    if len(checks) <= patience:
        return False
    before, recent = checks[:-patience], checks[-patience:]
    return all(max(row[key] for row in recent) <= max(row[key] for row in before) for key in ("auc", "selected"))
