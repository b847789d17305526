"""Step 3, `train adapt`: continue pre-training on blanks, so that the model learns to fill them in and to use chunks.

The step trains all weights with prompts in one layout. By default, half of the prompts contain retrieved chunks. The
loss is the mean -ln P of the truth's tokens, plus a weighted mean -ln P of the tokens of L, the text before the blank.
A sequence has about 600 tokens, of which the truth has only about 40. So the loss on L adds much training signal at
almost no cost.

An interrupted and resumed run ends with the same weights as an uninterrupted run, on the same machine with the same
number of threads. For this reason, the blanks of a step depend only on the seed and the number of the step, the model
has no dropout, and a checkpoint contains the weights and AdamW's moments in float32. The learning rate warms up and
then stays constant, so that a run can be extended at any time. The last `decay` steps reduce the learning rate to zero.
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
from .running import StopRequest, keep_freed_memory, save_atomically

STATE = "state.pt"
BUDGETS = Budgets(left=384, right=128, context=384, step_lines=8)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The number of steps, the blanks per step (`batch`), and the learning rate.

    The learning rate rises over `warmup` steps to `lr`, stays constant, and falls to 0 over the last `decay` steps.
    """

    steps: int = 2000
    batch: int = 16
    lr: float = 1e-4
    warmup: int = 10
    decay: int = 0

    def rate(self, step: int) -> float:
        """Return the learning rate of step `step`, counted from 0."""
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
    """Train until `schedule.steps` steps are done. Resume from the checkpoint in `out` if there is one.

    The share `context_share` of the prompts contains chunks. `left_weight` is the weight of the loss on L. `start` is a
    checkpoint whose weights replace those of the base, for example the result of an earlier run. Every `validate_every`
    steps (0: never), the loss on `validation_blanks` blanks is measured. Raises `TrainingError` if `out` contains a run
    with other inputs or arguments. The numbers of steps and of decay steps, and when to validate and to save, may
    differ.
    """
    schedule = schedule or Schedule()
    inputs = {"blanks": blanks, "corpus": corpus, "base": base} | ({"start": start} if start else {})
    arguments = {
        "layout": layout, "budgets": asdict(budgets), "batch": schedule.batch, "lr": schedule.lr,
        "warmup": schedule.warmup, "context_share": context_share, "left_weight": left_weight,
        "precision": compute.precision, "seed": seed,
    }  # fmt: skip
    manifest.begin(out, "adapt", inputs, arguments)
    keep_freed_memory()
    loaded = bases.load(base, weights=start)
    model: Any = loaded.model.to(compute.device)
    model.train()
    builder = ExampleBuilder(corpus, loaded, layout, budgets)
    data = load(blanks / "train.jsonl")
    validation = sample_blanks(load(blanks / "valid.jsonl"), validation_blanks, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.lr, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    step = restore(out, model, optimizer)
    if step == 0 and start is None:
        append_metrics(out, {"step": 0, "left_only": mean_nll(model, builder, validation, "left-only", compute)})
    saved = time.monotonic()
    with StopRequest() as stop, tqdm(total=schedule.steps, initial=step, desc="adapt", unit="step") as bar:
        while step < schedule.steps and not stop.requested:
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
                    row[mode] = mean_nll(model, builder, validation, mode, compute)
            append_metrics(out, row)
            bar.update()
            bar.set_postfix(loss=f"{losses.middle:.3f}")
            if stop.requested or step == schedule.steps or time.monotonic() - saved > 60 * save_minutes:
                save(out, model, optimizer, step)
                saved = time.monotonic()
    if step >= schedule.steps:
        manifest.finish(out, steps=step, metrics=history(out)[-1])


def batch_of(
    builder: ExampleBuilder, data: Sequence[Blank], step: int, size: int, context_share: float, seed: int
) -> list[Example]:
    """Return the examples of one step, which has `size` blanks. Each epoch has its own order of the blanks.

    Whether the prompt of a blank contains its chunks is random, with probability `context_share`. A blank whose truth
    has too many tokens gives no example.
    """
    examples = []
    for number in range(step * size, (step + 1) * size):
        epoch, position = divmod(number, len(data))
        blank = data[epoch_order(len(data), epoch, seed)[position]]
        context = bool(blank.hits) and random.Random(f"{seed} {epoch} {blank.id}").random() < context_share
        if example := builder.build(blank, context=context):
            examples.append(example)
    return examples


def epoch_order(count: int, epoch: int, seed: int, _cache: dict[tuple[int, int, int], list[int]] = {}) -> list[int]:  # noqa: B006
    """Return a permutation of `range(count)` that depends only on the seed and the epoch."""
    key = (count, epoch, seed)
    if key not in _cache:
        _cache.clear()
        _cache[key] = random.Random(f"{seed} {epoch}").sample(range(count), count)
    return _cache[key]


def sample_blanks(data: Sequence[Blank], count: int, seed: int) -> list[Blank]:
    """Return a fixed random sample of up to `count` blanks."""
    return random.Random(seed).sample(list(data), min(count, len(data)))


def mean_nll(model: Any, builder: ExampleBuilder, data: Sequence[Blank], mode: str, compute: Compute) -> float:
    """Return the mean -ln P of the tokens of the blanks' truths, end tokens included, in nats per token.

    `mode` selects the prompt: "abstain" (without chunks), "retrieve" (with chunks), or "left-only" (only L).
    """
    built = [
        builder.build_left_only(blank) if mode == "left-only" else builder.build(blank, context=mode == "retrieve")
        for blank in data
    ]
    examples = [example for example in built if example]
    model.eval()
    total = sum(nll(model, examples, compute))
    model.train()
    return total / sum(len(example.tokens) - example.middle for example in examples)


def save(out: Path, model: Any, optimizer: torch.optim.Optimizer, step: int, name: str = STATE) -> None:
    """Write the weights, the optimizer's moments and the number of finished steps to the checkpoint in `out`."""
    state = {**lora.state_of(model), "optimizer": optimizer.state_dict(), "step": step}
    save_atomically(out / name, lambda path: torch.save(state, path))


def restore(out: Path, model: Any, optimizer: torch.optim.Optimizer) -> int:
    """Load the checkpoint in `out` and return the number of finished steps, or 0 if there is no checkpoint.

    Rows of the metrics file for later steps are removed, because these steps run again.
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
    """Return the arguments of the run whose checkpoint is in `trained`.

    Raises `TrainingError` if there is no checkpoint.
    """
    arguments = manifest.read(trained).get("arguments")
    if not arguments or not (trained / STATE).is_file():
        raise manifest.TrainingError(f"no checkpoint of a training run in {trained}")
    return dict(arguments)


def starting_point(trained: Path | None, base: Path) -> tuple[dict[str, Any], Path | None]:
    """Return the arguments of the earlier training, and the checkpoint from which a step starts.

    With `trained`, both come from the run in that folder. Without `trained`, `base` must be a model that `train export`
    wrote: the arguments come from its metadata, and the checkpoint is None. Raises `TrainingError` for any other base.
    """
    return (arguments_of(trained), trained / STATE) if trained else (bases.trained_as(base), None)


def append_metrics(out: Path, row: dict[str, float]) -> None:
    """Append a row to `metrics.jsonl`. Raises `TrainingError` if a value is infinite or the file cannot be written."""
    if any(isinstance(value, float) and math.isinf(value) for value in row.values()):
        raise manifest.TrainingError(f"the loss is infinite at step {row['step']}")
    path = out / "metrics.jsonl"
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as problem:
        raise manifest.TrainingError(f"could not write {path}: {problem}") from problem


def history(out: Path) -> list[dict[str, float]]:
    """Return the rows of `metrics.jsonl`, one per step, without an incomplete last line."""
    path = out / "metrics.jsonl"
    complete, _, _ = path.read_text("utf-8").rpartition("\n") if path.is_file() else ("", "", "")
    return [json.loads(line) for line in complete.splitlines()]
