"""Step 5, `train finetune`: the model learns to judge, without forgetting to fill in.

Two losses, never mixed (paper, section 4.2): λ times the cross-entropy at the one position after `<eof>`, where the
target is `<cc>` or `<fim_middle>`, plus that of the blank's own tokens on the branch that the label leads to. A mean
over both kinds of tokens would drown the decision in forty tokens of code, and P(`<cc>`) would collapse.

The run stops when neither validation AUC nor the similarity reached by selecting has risen for `patience` checks, and
keeps the weights of the best one. Then a gate on P(`<cc>`) is fitted on validation: a logistic map to the observed
rate, and thresholds, one for lines and one for blocks. It goes into the manifest, and from there into the exported
model.
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
from policy.gating.gate import Known
from policy.prompting.prompt import Budgets

from . import base as bases
from . import lora, manifest
from .adapt import history, note, order, restore, save, start_of
from .blanks import Blank, eligible, load
from .compute import FLOAT32, Compute
from .examples import Example, ExampleBuilder, micro_batches
from .fitting import MOST_RETRIEVED, best_threshold, fit_gate
from .label import Label, load_labels
from .loss import Losses, Weights, backward, backward_judging, hidden_states
from .probes import Probe
from .probes import read as read_probes
from .rounding import rounded
from .running import StopRequest, quick_memory

BEST = "best.pt"
LabelKind = Literal["similarity", "likelihood", "own"]
Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True)
class Judged:
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
    """Fine-tune from the checkpoint in `trained` on `limit` blanks (0: all); `decision_weight` is the paper's λ.

    A decision to retrieve counts `positive_weight` times. With less than a third of the blanks positive and a small
    model's modest certainty, `<cc>` is hardly ever the likeliest token; this moves the odds, not the order.

    Without `trained` the base itself is where training begins: a model that an earlier `export` wrote.

    `label_kind` is "similarity" (gain in ES over `least_gain`), "likelihood" (gain in nats over `least_gain`, and over
    the share `least_share` of what there was to gain), or "own": the likelihoods are those of the model as it trains,
    both branches learn, and no labels are needed. Where there are none for validation the last weights are kept, and
    `export --evaluated` fits the thresholds. To those decisions the ones at `probes` (the artefact of that step) are
    added. With a `lora_rank` all weights stay as they are and differences of that rank are trained
    (`policy.training.lora`). With `freeze_embedding` the embedding stays as it is; with `rounding` (a type of GGUF
    file, such as Q4_0) training is aware of it (`policy.training.rounding`).
    """
    if lora_rank and rounding:
        raise manifest.TrainingError("rounding is for training all weights: it cannot be had with a LoRA")
    told, checkpoint = start_of(trained, base)
    arguments = {
        "decision_weight": decision_weight, "label_kind": label_kind, "least_gain": least_gain, "epochs": epochs,
        "batch": batch, "lr": lr, "left_weight": left_weight, "limit": limit, "precision": compute.precision,
        "seed": seed, "layout": told["layout"], "budgets": told["budgets"],
    }  # fmt: skip
    further = {"lora_rank": lora_rank, "freeze_embedding": freeze_embedding, "rounding": rounding,
               "least_share": least_share}  # fmt: skip
    arguments |= {name: value for name, value in further.items() if value}
    if positive_weight != 1:
        arguments["positive_weight"] = positive_weight
    inputs = {"blanks": blanks, "base": base} | ({"probes": probes} if probes else {})
    inputs |= {"trained": checkpoint} if checkpoint else {}
    # The rows themselves, since a part of the labels will do. A model that judges its own blanks needs none of them.
    if label_kind != "own":
        inputs |= {"labels": labels / "train.jsonl", "validation labels": labels / "valid.jsonl"}
    elif (labels / "valid.jsonl").is_file():
        inputs |= {"validation labels": labels / "valid.jsonl"}
    manifest.begin(out, "finetune", inputs, arguments)
    quick_memory()
    loaded = bases.load(base, weights=checkpoint)
    model: Any = loaded.model.to(compute.device)
    model.train()
    if freeze_embedding:
        model.get_input_embeddings().requires_grad_(False)
    if lora_rank:
        lora.attach(model, lora_rank, seed)
    builder = ExampleBuilder(corpus, loaded, str(told["layout"]), Budgets(**told["budgets"]))
    valid = judged(blanks / "valid.jsonl", labels / "valid.jsonl", 0, seed)
    step_of: Callable[[int], tuple[Losses, float]]
    if label_kind == "own":
        own = eligible(load(blanks / "train.jsonl"), limit, seed)
        probed = read_probes(probes / "train.jsonl") if probes else {}
        count = len(own)

        def step_of(step: int) -> tuple[Losses, float]:
            pairs = pairs_of(builder, own, probed, step, batch, seed)
            cc = loaded.vocabulary.ids["cc"]

            def helps(without: float, with_: float) -> bool:
                return likelier(without, with_, least_gain, least_share)

            return backward_judging(model, pairs, weights, helps, cc, compute)
    else:
        train = judged(blanks / "train.jsonl", labels / "train.jsonl", limit, seed)
        count = len(train)

        def step_of(step: int) -> tuple[Losses, float]:
            chosen = entries_of(train, step, batch, seed)
            verdicts = [helpful(entry.label, label_kind, least_gain, least_share) for entry in chosen]
            examples = [example for entry, positive in zip(chosen, verdicts, strict=True)
                        for example in builder.build_judged(entry.blank, positive=positive)]  # fmt: skip
            return backward(model, examples, weights, compute), sum(verdicts) / len(verdicts)

    if not count or not (valid or label_kind == "own"):
        raise manifest.TrainingError(f"no labels in {labels}: run `train label` first")
    steps = max(1, round(epochs * count / batch))
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=lr, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    step = restore(out, model, optimizer)
    if step == 0:
        (out / BEST).unlink(missing_ok=True)  # the best of an attempt of which nothing else is left
    saved = time.monotonic()
    warmup = max(1, min(50, steps // 10))
    weights = Weights(left_weight, decision_weight, {loaded.vocabulary.ids["cc"]: positive_weight})
    with StopRequest() as stop, tqdm(total=steps, initial=step, desc="finetune", unit="step") as bar:
        while step < steps and not stop.asked and not stale(history(out), patience):
            for group in optimizer.param_groups:
                group["lr"] = lr * min(1.0, (step + 1) / warmup) * (1 - step / steps)
            optimizer.zero_grad(set_to_none=True)
            with rounded(model, rounding):
                losses, positive = step_of(step)
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
            note(out, row)
            bar.update()
            bar.set_postfix(decision=f"{losses.decision:.3f}")
            if stop.asked or step == steps or time.monotonic() - saved > 60 * save_minutes:
                save(out, model, optimizer, step)
                saved = time.monotonic()
    if stop.asked:
        return
    if not valid:
        manifest.finish(out, steps=step, counts={"train": count})
        return
    lora.restore(model, torch.load(out / BEST, map_location="cpu", weights_only=True, mmap=True))
    with rounded(model, rounding):
        p = p_retrieve(model, builder, valid, compute)
    known = [Known("block" if entry.label.kind == "function" else "line", value)
             for entry, value in zip(valid, p, strict=True)]  # fmt: skip
    gate = fit_gate("token", ["token"], known, [entry.label.gain for entry in valid], MOST_RETRIEVED)
    counts = {"train": count, "valid": len(valid)}
    manifest.finish(out, steps=step, counts=counts, metrics=check(p, valid), gates=[asdict(gate)])


def judged(blanks: Path, labels: Path, limit: int, seed: int) -> list[Judged]:
    """Up to `limit` blanks (0: all) that have a usable label, with it, in a fixed random order."""
    known = {label.id: label for label in reversed(load_labels(labels)) if label.tokens}  # the first of an id counts
    labelled = [blank for blank in load(blanks) if blank.id in known]
    return [Judged(blank, known[blank.id]) for blank in eligible(labelled, limit, seed)]


def helpful(label: Label, kind: LabelKind, least_gain: float, least_share: float) -> bool:
    """What a label says: retrieval raised edit similarity (the paper's), or (cheaper) the true text's likelihood."""
    if kind == "similarity":
        return label.gain > least_gain
    return likelier(label.nll_without, label.nll_with, least_gain, least_share)


def likelier(without: float, with_: float, least_gain: float, least_share: float) -> bool:
    """Whether a text became likelier by more than `least_gain` nats and a share `least_share` of all that it took.

    The first is for short texts, where one token decides. Ten lines gain two nats from anything at all; what they
    have to gain to turn out differently grows with them.
    """
    gain = without - with_
    return gain > least_gain and (not least_share or gain > least_share * without)


def entries_of(data: Sequence[Entry], step: int, size: int, seed: int) -> list[Entry]:
    """The entries of one step: the data in a new order each epoch."""
    places = (divmod(number, len(data)) for number in range(step * size, (step + 1) * size))
    return [data[order(len(data), epoch, seed)[place]] for epoch, place in places]


def pairs_of(
    builder: ExampleBuilder,
    data: Sequence[Blank],
    probes: Mapping[str, Sequence[Probe]],
    step: int,
    size: int,
    seed: int,
) -> list[tuple[Example, Example]]:
    """The blanks of one step both ways: plain with its decision, and retrieved."""
    pairs = []
    for blank in entries_of(data, step, size, seed):
        plain, retrieved = builder.build_judged(blank, positive=False), builder.build(blank, context=True)
        if plain and retrieved:
            pairs.append((builder.add_probes(plain[0], blank, probes.get(blank.id, ())), retrieved))
    return pairs


@torch.no_grad()
def p_retrieve(model: Any, builder: ExampleBuilder, data: Sequence[Judged], compute: Compute) -> list[float]:
    """P(`<cc>`) after `<eof>` over the whole vocabulary, for each blank."""
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


def check(p: Sequence[float], data: Sequence[Judged]) -> dict[str, float]:
    """Validation: AUC and calibration of P(`<cc>`), and ES when at most 60% retrieve, against never and always."""
    gains = np.array([entry.label.gain for entry in data])
    without = float(np.mean([entry.label.es_without for entry in data]))
    threshold = best_threshold(p, gains.tolist(), MOST_RETRIEVED)
    chosen = np.asarray(p) > threshold
    return {
        "auc": auc(p, gains > 0),
        "calibration_error": calibration_error(p, gains > 0),
        "never": without,
        "always": without + float(gains.mean()),
        "selected": without + float((gains * chosen).mean()),
        "share": float(chosen.mean()),
    }


def stale(rows: Sequence[Mapping[str, float]], patience: int) -> bool:
    """Whether neither AUC nor the similarity reached by selecting rose in the last `patience` checks."""
    checks = [row for row in rows if "selected" in row]
    if len(checks) <= patience:
        return False
    before, recent = checks[:-patience], checks[-patience:]
    return all(max(row[key] for row in recent) <= max(row[key] for row in before) for key in ("auc", "selected"))
