"""Step 6, `train export`: convert a checkpoint to GGUF files that the server can load.

The metadata contains everything that serving needs: the layout and the budgets of the training run, the fitted gates,
the markers, the base model and its license, and the hash of the run's manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from policy.gating.gate import Gate
from policy.models.shards import sha256
from policy.prompting.prompt import Role

from . import base as bases
from . import manifest
from .convert import Tables, configuration, tables_of, write
from .manifest import TrainingError
from .quantizing import TYPES as QUANTIZED
from .quantizing import quantize
from .splitting import remove_parts, split

TYPES = ("F16", *QUANTIZED)
_FIM_KEYS: Mapping[Role, str] = {
    "prefix": "tokenizer.ggml.fim_pre_token_id",
    "suffix": "tokenizer.ggml.fim_suf_token_id",
    "middle": "tokenizer.ggml.fim_mid_token_id",
}


def run(
    out: Path,
    trained: Path,
    base: Path,
    types: Sequence[str] = TYPES,
    name: str = "repoformer-smollm2-135m",
    evaluated: Sequence[Path] = (),
    part_bytes: int = 0,
) -> list[Path]:
    """Write `OUT/NAME-TYPE.gguf` for F16 and each of `types` from the checkpoint in `trained`. Return the paths.

    If `evaluated` is empty, the gates come from the manifest of `finetune`. Otherwise the gates are fitted on the
    results in `evaluated`: folders of `repoformer-lsp eval` runs on validation repositories, with an exported file of
    the same weights. The gates of the built-in model are fitted in this way, because these results come from llama.cpp
    with quantized weights, as in serving. `part_bytes`, unless 0, is the approximate size of the parts into which
    quantized files are split. Raises `TrainingError` for an unknown type, or if `trained` has no checkpoint.
    """
    import torch

    from .adapt import STATE
    from .finetune import BEST

    if unknown := [type_ for type_ in types if type_ not in TYPES]:
        raise TrainingError(f"unknown types {', '.join(unknown)}; known: {', '.join(TYPES)}")
    checkpoint = trained / (BEST if (trained / BEST).is_file() else STATE)
    if not checkpoint.is_file():
        raise TrainingError(f"no checkpoint in {trained}")
    out.mkdir(parents=True, exist_ok=True)
    source = manifest.read(trained)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    config, tables = describe(base)
    gates = fit(evaluated) if evaluated else [Gate(**gate) for gate in source.get("gates", [])]
    extra = metadata(name, base, trained, source, int(state["step"]), gates)
    unquantized = out / f"{name}-F16.gguf"
    write(unquantized, config, state["model"], tables, extra)
    paths = [unquantized]
    for type_ in types:
        if type_ != "F16":
            paths.append(out / f"{name}-{type_}.gguf")
            quantize(unquantized, paths[-1], type_)
            if part_bytes:
                paths[-1:] = split(paths[-1], part_bytes)
            else:
                remove_parts(paths[-1])
    sizes = {path.name: {"bytes": path.stat().st_size, "sha256": sha256([path])} for path in paths}
    # A checkpoint can be exported again, for example with other gates, so an existing manifest is replaced.
    description = {"step": "export", "commit": manifest.commit(), "steps": int(state["step"]), "source": source,
            "gates": [asdict(gate) for gate in gates]}  # fmt: skip
    manifest.write(out, {**description, "files": sizes, "done": True})
    return paths


def fit(evaluated: Sequence[Path]) -> list[Gate]:
    """Fit two gates on evaluation results: one on P(`<cc>`) alone, and the best gate (`gate.best_gate`).

    The result has only one gate if there are too few results for the second, or if both are the same. Raises
    `TrainingError` without results of a model that decides.
    """
    from . import gate

    rows = [row for row in gate.results(evaluated) if row.p_cc is not None]
    if not rows:
        raise TrainingError(f"{', '.join(map(str, evaluated))}: no results of a model with a decision token")
    names = ["token", gate.best_gate(rows)] if gate.has_enough_data(rows) else ["token"]
    return [gate.fit(rows, gate.GATES[name]) for name in dict.fromkeys(names)]


def describe(base: Path) -> tuple[dict[str, Any], Tables]:
    """Return the configuration and the vocabulary of the base, with our names for the tokens that become markers."""
    base = bases.unpack(base)
    if base.is_dir():
        loaded = bases.load(base)
        tokenizer = json.loads(loaded.tokenizer.inner.to_str())
        return loaded.config.to_dict(), tables_of(tokenizer, loaded.config.vocab_size)
    fields = bases.gguf_fields(base)
    config = configuration(base)
    names = list(fields["tokenizer.ggml.tokens"])
    roles = bases.marker_ids(names, base)
    for role, number in roles.items():
        names[number] = bases.NAMES[role]
    control = frozenset(number for number, kind in enumerate(fields["tokenizer.ggml.token_type"]) if kind == 3)
    end = names.index(bases.END)
    ids = {_FIM_KEYS[role]: number for role, number in roles.items() if role in _FIM_KEYS}
    ids |= {"tokenizer.ggml.eos_token_id": end, "tokenizer.ggml.bos_token_id": end}
    merges = list(fields["tokenizer.ggml.merges"])
    return config, Tables(names, control, merges, str(fields["tokenizer.ggml.pre"]), ids)


def metadata(
    name: str,
    base: Path,
    trained: Path,
    source: Mapping[str, Any],
    step: int,
    gates: Sequence[Gate],
) -> dict[str, str | int | float]:
    """Return the metadata of an exported file. `source` is the manifest of the run, and `step` its number of steps."""
    arguments = source["arguments"]
    return {
        "general.type": "model",
        "general.name": name,
        "general.license": "apache-2.0",
        "general.base_model.count": 1,
        "general.base_model.0.name": _base_name(base),
        "general.description": "Fill-in-the-middle with selective retrieval, made by repoformer-lsp train",
        "repoformer.layout": str(arguments["layout"]),
        **{f"repoformer.budget.{part}": int(size) for part, size in arguments["budgets"].items()},
        **{key: value for gate in gates for key, value in gate.to_metadata().items()},
        "repoformer.step": str(source["step"]),
        "repoformer.steps": step,
        "repoformer.manifest": manifest.digest(trained / manifest.NAME),
    }


def _base_name(base: Path) -> str:
    """Return the name of the original base model. A file that `train export` wrote has this name in its metadata."""
    base = bases.unpack(base)
    own = {} if base.is_dir() else bases.gguf_fields(base)
    return str(own["general.base_model.0.name"]) if "repoformer.layout" in own else base.stem
