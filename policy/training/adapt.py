"""Step 3, `train adapt`: continued pre-training on blanks, so that the model fills in and reads CC before it judges.

Full fine-tuning in one of our layouts, half of the blanks with retrieved context. The loss is the blank's mean plus a
share of L's: a blank is forty tokens in a sequence of six hundred, and the left context, which stands behind the
right and the retrieved one, teaches the same reading for almost nothing more.

The order of the blanks is a function of the seed and the step alone, there is no dropout, and a checkpoint holds the
weights and AdamW's moments in float32: a run that was stopped ends with the same weights as one that was not (on the
same machine, with the same number of threads). The learning rate warms up and then stays, so that a run can be made
longer at any time; `decay` steps at the end bring it to nothing.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from policy.prompting.prompt import Budgets

from . import base as bases
from . import lora, manifest
from .blanks import Blank, load
from .compute import FLOAT32, Compute
from .examples import Example, ExampleBuilder
from .loss import Weights, backward, nll
from .running import StopRequest, quick_memory, save_atomically

STATE = "state.pt"
BUDGETS = Budgets(left=384, right=128, context=384, step_lines=8)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps, blanks a step, and the learning rate over the steps: warm-up, constant, linear decay."""

    steps: int = 2000
    batch: int = 16
    lr: float = 1e-4
    warmup: int = 10
    decay: int = 0

    def rate(self, step: int) -> float:
        """Learning rate of step `step`, counted from 0."""
        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        left = min(1.0, (self.steps - step) / self.decay) if self.decay else 1.0
        return self.lr * warm * left


def run(
    out: Path,
    corpus: Path,
    blanks: Path,
    base: Path,
    layout: str = "repoformer-spm",
    budgets: Budgets = BUDGETS,
    schedule: Schedule | None = None,
    context_share: float = 0.5,
    left_weight: float = 0.5,
    start: Path | None = None,
    validate_every: int = 50,
    validation_blanks: int = 48,
    save_minutes: float = 10.0,
    compute: Compute = FLOAT32,
    seed: int = 0,
) -> None:
    """Train until `schedule.steps`; going on from the checkpoint in `out` when there is one.

    `start` gives the weights to begin with instead of the base's own (the end of an earlier run, say). Raises
    `TrainingError` when `out` holds a run with other inputs or arguments; more steps than before are no difference.
    """
    schedule = schedule or Schedule()
    inputs = {"blanks": blanks, "corpus": corpus, "base": base} | ({"start": start} if start else {})
    arguments = {
        "layout": layout, "budgets": asdict(budgets), "batch": schedule.batch, "lr": schedule.lr,
        "warmup": schedule.warmup, "context_share": context_share, "left_weight": left_weight,
        "precision": compute.precision, "seed": seed,
    }  # fmt: skip
    manifest.begin(out, "adapt", inputs, arguments)
    quick_memory()
    loaded = bases.load(base, weights=start)
    model: Any = loaded.model.to(compute.device)
    model.train()
    builder = ExampleBuilder(corpus, loaded, layout, budgets)
    data = load(blanks / "train.jsonl")
    held_out = choose(load(blanks / "valid.jsonl"), validation_blanks, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.lr, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    step = restore(out, model, optimizer)
    if step == 0 and start is None:
        note(out, {"step": 0, "left_only": mean_nll(model, builder, held_out, "left-only", compute)})
    saved = time.monotonic()
    with StopRequest() as stop, tqdm(total=schedule.steps, initial=step, desc="adapt", unit="step") as bar:
        while step < schedule.steps and not stop.asked:
            began = time.monotonic()
            batch = batch_of(builder, data, step, schedule.batch, context_share, seed)
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
            optimizer.zero_grad(set_to_none=True)
            losses = backward(model, batch, Weights(left=left_weight), compute)
            norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
            optimizer.step()
            step += 1
            tokens = sum(len(example.tokens) for example in batch)
            row: dict[str, float] = {
                "step": step, "middle": losses.middle, "left": losses.left, "norm": norm, "tokens": tokens,
                "seconds": round(time.monotonic() - began, 2),
            }  # fmt: skip
            if validate_every and (step % validate_every == 0 or step == schedule.steps):
                for mode in ("abstain", "retrieve"):
                    row[mode] = mean_nll(model, builder, held_out, mode, compute)
            note(out, row)
            bar.update()
            bar.set_postfix(loss=f"{losses.middle:.3f}")
            if stop.asked or step == schedule.steps or time.monotonic() - saved > 60 * save_minutes:
                save(out, model, optimizer, step)
                saved = time.monotonic()
    if step >= schedule.steps:
        manifest.finish(out, steps=step, metrics=history(out)[-1])


def batch_of(
    builder: ExampleBuilder, data: Sequence[Blank], step: int, size: int, context_share: float, seed: int
) -> list[Example]:
    """The examples of one step: the data in a new order each epoch, a coin a blank for its context."""
    examples = []
    for number in range(step * size, (step + 1) * size):
        epoch, place = divmod(number, len(data))
        blank = data[order(len(data), epoch, seed)[place]]
        context = bool(blank.hits) and random.Random(f"{seed} {epoch} {blank.id}").random() < context_share
        if example := builder.build(blank, context=context):
            examples.append(example)
    return examples


def order(count: int, epoch: int, seed: int, _known: dict[tuple[int, int, int], list[int]] = {}) -> list[int]:  # noqa: B006
    """A permutation that depends on the seed and the epoch alone."""
    key = (count, epoch, seed)
    if key not in _known:
        _known.clear()
        _known[key] = random.Random(f"{seed} {epoch}").sample(range(count), count)
    return _known[key]


def choose(data: Sequence[Blank], count: int, seed: int) -> list[Blank]:
    """A fixed sample, spread over the kinds as the data is."""
    return random.Random(seed).sample(list(data), min(count, len(data)))


def mean_nll(model: Any, builder: ExampleBuilder, data: Sequence[Blank], mode: str, compute: Compute) -> float:
    """Mean negative log-likelihood a token of the blanks, in nats; `mode` is abstain, retrieve or left-only."""
    made = [
        builder.build_left_only(blank) if mode == "left-only" else builder.build(blank, context=mode == "retrieve")
        for blank in data
    ]
    examples = [example for example in made if example]
    model.eval()
    total = sum(nll(model, examples, compute))
    model.train()
    return total / sum(len(example.tokens) - example.middle for example in examples)


def save(out: Path, model: Any, optimizer: torch.optim.Optimizer, step: int, name: str = STATE) -> None:
    """Weights, moments and the step, in place of the checkpoint before."""
    state = {**lora.state_of(model), "optimizer": optimizer.state_dict(), "step": step}
    save_atomically(out / name, lambda path: torch.save(state, path))


def restore(out: Path, model: Any, optimizer: torch.optim.Optimizer) -> int:
    """Go on from the checkpoint in `out`; the number of steps done, 0 where there is none.

    What was noted behind the checkpoint, or before there was any, is taken back: those steps will be done again.
    """
    step = 0
    if (out / STATE).is_file():
        state = torch.load(out / STATE, map_location="cpu", weights_only=True, mmap=True)
        lora.restore(model, state)
        optimizer.load_state_dict(state["optimizer"])
        step = int(state["step"])
    kept = [row for row in history(out) if row["step"] <= step] if step else []
    (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept), "utf-8")
    return step


def arguments_of(trained: Path) -> dict[str, Any]:
    """The arguments of the run whose checkpoint is in `trained`; raises `TrainingError` when there is none."""
    told = manifest.read(trained).get("arguments")
    if not told or not (trained / STATE).is_file():
        raise manifest.TrainingError(f"no checkpoint of a training run in {trained}")
    return dict(told)


def start_of(trained: Path | None, base: Path) -> tuple[dict[str, Any], Path | None]:
    """What a later step begins with: arguments and checkpoint of the run in `trained`, or, without one, those that
    `base` carries, a model that an earlier `export` wrote, and no checkpoint. Raises `TrainingError` for any other.
    """
    return (arguments_of(trained), trained / STATE) if trained else (bases.trained_as(base), None)


def note(out: Path, row: dict[str, float]) -> None:
    """Add a line to the run's metrics."""
    if any(isinstance(value, float) and math.isinf(value) for value in row.values()):
        raise manifest.TrainingError(f"the loss is infinite at step {row['step']}")
    path = out / "metrics.jsonl"
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as problem:
        raise manifest.TrainingError(f"could not write {path}: {problem}") from problem


def history(out: Path) -> list[dict[str, float]]:
    """The run's metrics so far, a row a step; a row that an interrupt cut off is none."""
    path = out / "metrics.jsonl"
    whole, _, _ = path.read_text("utf-8").rpartition("\n") if path.is_file() else ("", "", "")
    return [json.loads(line) for line in whole.splitlines()]
