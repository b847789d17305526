"""A model that is trained in seconds, and the packages on which it is trained."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
import transformers

from policy.prompting.prompt import Budgets
from policy.training import adapt
from policy.training.compute import Compute

NAMES = ("shape", "area", "width", "color", "border", "corner", "canvas", "point")
BUDGETS = Budgets(left=64, right=24, context=48, step_lines=2)
LIST = "split,registry,name,version,license\n"


def wheel(path: Path, package: str, number: int) -> None:
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as wheel:
        for at, name in enumerate(NAMES):
            other, third = NAMES[at - 1], NAMES[at - 3]
            text = f"from .{other} import {other}_of\nfrom .{third} import {third}_of\nfrom math import sqrt\n\n\n"
            for item in range(6):
                text += (
                    f"def {name}_{package}_{item}(first, second={item + number}):\n"
                    f"    total = {other}_of(first) + {item * at}\n"
                    f"    if total > second:\n"
                    f"        return sqrt({third}_of(total))\n"
                    f"    return first + second * {number + item}\n\n\n"
                )
            wheel.writestr(f"{package}/{name}.py", text + f"def {name}_of(value):\n    return value\n")
        wheel.writestr(f"{package}/_vendor/copied.py", "x = 1\n" * 100)
        wheel.writestr(f"{package}/made.py", "# @generated, do not edit\n" + "x = 1\n" * 100)


def tiny_base(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    from tokenizers.trainers import BpeTrainer

    words = [f"def {name}_of(value):\n    return total\n" for name in NAMES]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=320, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"], show_progress=False
    )
    inner.train_from_iterator(words, trainer)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=inner.get_vocab_size(), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    inner.save(str(folder / "tokenizer.json"))


def run_adapt(work: Path, out: str, steps: int, save_minutes: float = 10.0) -> Path:
    schedule = adapt.Schedule(steps=steps, batch=8, lr=3e-3, warmup=2)
    adapt.run(
        work / out, work / "corpus", work / "blanks", work / "base", budgets=BUDGETS, schedule=schedule,
        validate_every=6, validation_blanks=16, save_minutes=save_minutes, compute=Compute(micro_tokens=512),
    )  # fmt: skip
    return work / out
