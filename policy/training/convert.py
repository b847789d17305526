"""Convert between transformers and GGUF: Llama models in both directions, Qwen2 from GGUF, gpt_bigcode to GGUF.

The architecture gpt_bigcode is that of StarCoder. For each architecture, the module converts the tensor names, the
tokenizer's tables and the hyper-parameters. It runs no code from the model's folder. The trade-off: the module is
short, but supports only a few architectures.

Source of the tensor names and keys: the GGUF specification and llama.cpp's `gguf-py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from policy.models.shards import shards_of

from .manifest import TrainingError
from .running import save_atomically

if TYPE_CHECKING:
    import torch

Type = Literal["F32", "F16"]

# Names of tensors in transformers and in GGUF, without ".weight" and ".bias"; {n} is the number of the layer.
_LLAMA: Mapping[str, str] = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers.{n}.input_layernorm": "blk.{n}.attn_norm",
    "model.layers.{n}.self_attn.q_proj": "blk.{n}.attn_q",
    "model.layers.{n}.self_attn.k_proj": "blk.{n}.attn_k",
    "model.layers.{n}.self_attn.v_proj": "blk.{n}.attn_v",
    "model.layers.{n}.self_attn.o_proj": "blk.{n}.attn_output",
    "model.layers.{n}.post_attention_layernorm": "blk.{n}.ffn_norm",
    "model.layers.{n}.mlp.gate_proj": "blk.{n}.ffn_gate",
    "model.layers.{n}.mlp.up_proj": "blk.{n}.ffn_up",
    "model.layers.{n}.mlp.down_proj": "blk.{n}.ffn_down",
}
_BIGCODE: Mapping[str, str] = {
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "lm_head": "output",
    "transformer.h.{n}.ln_1": "blk.{n}.attn_norm",
    "transformer.h.{n}.attn.c_attn": "blk.{n}.attn_qkv",
    "transformer.h.{n}.attn.c_proj": "blk.{n}.attn_output",
    "transformer.h.{n}.ln_2": "blk.{n}.ffn_norm",
    "transformer.h.{n}.mlp.c_fc": "blk.{n}.ffn_up",
    "transformer.h.{n}.mlp.c_proj": "blk.{n}.ffn_down",
}


@dataclass(frozen=True, slots=True)
class Tables:
    """A byte-level BPE vocabulary: the tokens by id, the ids of the control tokens, and the merges ("a b") in order.

    `pre` is llama.cpp's name of the pre-tokenizer. `ids` has further metadata whose values are token ids, by key
    (`tokenizer.ggml.eos_token_id`, …). `ends` says whether the model expects BOS before a text and EOS after it.
    """

    tokens: Sequence[str]
    control: frozenset[int]
    merges: Sequence[str]
    pre: str
    ids: Mapping[str, int]
    ends: bool = False


def write(
    path: Path,
    config: Mapping[str, Any],
    state: Mapping[str, torch.Tensor],
    tables: Tables,
    extra: Mapping[str, str | int | float],
    type_: Type = "F16",
) -> None:
    """Write a model as a GGUF file to `path`. `config` is the transformers configuration, and `state` the state dict.

    `extra` is further metadata. Raises `TrainingError` for an unsupported architecture, an unknown tensor, or a
    vocabulary of the wrong size.
    """
    kind = architecture(config)

    def add_keys(writer: Any) -> None:
        (_llama_keys if kind == "llama" else _bigcode_keys)(writer, config)
        tokenizer_keys(writer, tables)
        for key, value in extra.items():
            add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)]
            add(key, value)

    name = "llama" if kind == "llama" else "starcoder"
    save_gguf(path, name, add_keys, _tensors(config, state, len(tables.tokens)), type_)


def save_gguf(
    path: Path,
    kind: str,
    add_keys: Callable[[Any], None],
    tensors: Iterable[tuple[str, np.ndarray[Any, np.dtype[np.float32]]]],
    type_: Type,
) -> None:
    """Write a GGUF file of the architecture `kind` to `path`, with matrices in the type `type_`.

    `add_keys` adds the metadata to a `gguf.GGUFWriter`.
    """
    import gguf

    def fill(target: Path) -> None:
        writer = gguf.GGUFWriter(target, kind)
        writer.add_file_type(0 if type_ == "F32" else 1)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        add_keys(writer)
        for name, array in tensors:
            # llama.cpp adds a row of `token_types` to float32 values, which needs float32.
            matrix = array.ndim > 1 and type_ == "F16" and name != "token_types.weight"
            writer.add_tensor(name, array.astype(np.float16 if matrix else np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    save_atomically(path, fill)


def architecture(config: Mapping[str, Any]) -> str:
    """Return the `model_type` of a configuration. Raises `TrainingError` if such models cannot be converted."""
    kind = str(config.get("model_type"))
    if kind not in {"llama", "gpt_bigcode"}:
        raise TrainingError(f"no conversion for {kind!r} models (supported: llama, gpt_bigcode, bert, roberta)")
    return kind


def import_folder(folder: Path, out: Path, extra: Mapping[str, str | int | float], type_: Type = "F16") -> None:
    """Convert the Hugging Face checkpoint in `folder` to the GGUF file `out`. `extra` is further metadata.

    If a part of the checkpoint is missing or unknown, raises a `TrainingError` that names this part.
    """
    config, tokenizer = read_folder(folder)
    architecture(config)
    tables = tables_of(tokenizer, int(config["vocab_size"]))
    name = str(config.get("_name_or_path") or folder.name)
    write(out, config, state_of(folder), tables, {"general.name": name, **extra}, type_)


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the content of `config.json` and of `tokenizer.json`. Raises `TrainingError` if one cannot be read."""
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise TrainingError(f"{folder} has no {name}")
    try:
        config, tokenizer = (
            json.loads((folder / name).read_text("utf-8")) for name in ("config.json", "tokenizer.json")
        )
    except ValueError as problem:
        raise TrainingError(f"{folder}: config.json or tokenizer.json is damaged ({problem})") from problem
    return config, tokenizer


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of a checkpoint, from safetensors files, or from .bin files without running pickled code."""
    for index in folder.glob("*.safetensors.index.json"):
        parts = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        if missing := [part for part in parts if not (folder / part).is_file()]:
            raise TrainingError(f"{folder} is incomplete: {', '.join(missing)} is named in {index.name}")
    files = sorted(folder.glob("*.safetensors"))
    if files:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return {name: tensor for file in files for name, tensor in load_file(file).items()}
        except SafetensorError as problem:
            raise TrainingError(f"the weights in {folder} are damaged: {problem}") from problem
    if not (files := sorted(folder.glob("pytorch_model*.bin"))):
        raise TrainingError(f"{folder} has no weights (*.safetensors or pytorch_model*.bin)")
    import torch

    return {
        name: tensor
        for file in files
        for name, tensor in torch.load(file, map_location="cpu", weights_only=True).items()
    }


def tables_of(tokenizer: Mapping[str, Any], size: int) -> Tables:
    """Convert the content of a `tokenizer.json`. `size` is the number of rows of the model's embedding.

    Ids below `size` without a token become unused tokens. Raises `TrainingError` for a tokenizer that is no byte-level
    BPE tokenizer, and for a token whose id is not below `size`.
    """
    model = tokenizer["model"]
    if model.get("type") != "BPE" or "ByteLevel" not in json.dumps(tokenizer.get("pre_tokenizer")):
        raise TrainingError("only byte-level BPE tokenizers can be converted")
    tokens = [f"[PAD{number}]" for number in range(size)]
    named = dict(model["vocab"])
    added = {entry["content"]: entry["id"] for entry in tokenizer.get("added_tokens", ())}
    for token, number in {**named, **added}.items():
        if number >= size:
            raise TrainingError(f"token {token!r} has id {number}, the model has {size} rows")
        tokens[number] = token
    unnamed = {number for number, token in enumerate(tokens) if token == f"[PAD{number}]"}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    ids = {}
    for key, names in _KNOWN_TOKENS.items():
        number = next((added[name] for name in names if name in added), None)
        if number is not None:
            ids[key] = number
    pre = "starcoder" if '"Digits"' in json.dumps(tokenizer["pre_tokenizer"]) else "gpt-2"
    return Tables(tokens, frozenset(added.values()) | unnamed, merges, pre, ids)


_KNOWN_TOKENS = {
    "tokenizer.ggml.bos_token_id": ("<|endoftext|>", "<s>"),
    "tokenizer.ggml.eos_token_id": ("<|endoftext|>", "</s>"),
    "tokenizer.ggml.fim_pre_token_id": ("<fim_prefix>", "<fim-prefix>", "<|fim_prefix|>"),
    "tokenizer.ggml.fim_suf_token_id": ("<fim_suffix>", "<fim-suffix>", "<|fim_suffix|>"),
    "tokenizer.ggml.fim_mid_token_id": ("<fim_middle>", "<fim-middle>", "<|fim_middle|>"),
}


def configuration(path: Path) -> dict[str, Any]:
    """Return the transformers configuration of a GGUF of the Llama or Qwen2 architecture.

    Raises `TrainingError` for another architecture.
    """
    import gguf

    readers = [gguf.GGUFReader(part) for part in shards_of(path)]
    fields = {key: field.contents() for key, field in readers[0].fields.items() if not key.startswith("tokenizer.")}
    if (kind := fields.get("general.architecture")) not in {"llama", "qwen2"}:
        raise TrainingError(f"{path} is a {kind!r} model; only GGUF files of Llama and Qwen2 models can be read")
    tensors = {str(tensor.name): tensor for reader in readers for tensor in reader.tensors}
    return {
        "model_type": kind,
        "vocab_size": int(tensors["token_embd.weight"].shape[1]),
        "tie_word_embeddings": "output.weight" not in tensors,
        "hidden_size": fields[f"{kind}.embedding_length"],
        "intermediate_size": fields[f"{kind}.feed_forward_length"],
        "num_hidden_layers": fields[f"{kind}.block_count"],
        "num_attention_heads": fields[f"{kind}.attention.head_count"],
        "num_key_value_heads": fields.get(f"{kind}.attention.head_count_kv", fields[f"{kind}.attention.head_count"]),
        "max_position_embeddings": fields[f"{kind}.context_length"],
        "rms_norm_eps": float(fields[f"{kind}.attention.layer_norm_rms_epsilon"]),
        "rope_theta": float(fields.get(f"{kind}.rope.freq_base", 10_000.0)),
    }


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a Llama or Qwen2 GGUF in float32, with the names and the order of rows of transformers."""
    import gguf
    import torch

    config = configuration(path)
    names = {target: name for name, target in _LLAMA.items()}
    state = {}
    for tensor in (tensor for part in shards_of(path) for tensor in gguf.GGUFReader(part).tensors):
        name = renamed(str(tensor.name), names)
        array = gguf.dequantize(tensor.data, tensor.tensor_type)
        if config["model_type"] == "llama" and (".q_proj." in name or ".k_proj." in name):
            heads = config["num_attention_heads" if ".q_proj." in name else "num_key_value_heads"]
            array = _pairs_to_halves(array, int(heads))
        state[name] = torch.tensor(np.asarray(array, np.float32))
    return state


def _tensors(
    config: Mapping[str, Any], state: Mapping[str, torch.Tensor], size: int
) -> Iterator[tuple[str, np.ndarray[Any, np.dtype[np.float32]]]]:
    llama = config["model_type"] == "llama"
    tied = bool(config.get("tie_word_embeddings", True))
    for name, tensor in state.items():
        if (tied and name == "lm_head.weight") or name.endswith((".attn.bias", ".attn.masked_bias", "inv_freq")):
            continue
        target = renamed(name, _LLAMA if llama else _BIGCODE)
        array = tensor.float().numpy()
        if target == "token_embd.weight" and len(array) != size:
            raise TrainingError(f"{len(array)} rows in the embedding, {size} tokens in the vocabulary")
        if llama and target.endswith(("attn_q.weight", "attn_k.weight")):
            heads = config["num_attention_heads" if "attn_q" in target else "num_key_value_heads"]
            array = _halves_to_pairs(array, int(heads))
        yield target, array


def renamed(name: str, names: Mapping[str, str]) -> str:
    """Return a tensor's name in the other format, by the table `names`. Raises `TrainingError` for an unknown name."""
    stem, _, kind = name.rpartition(".")
    layer = re.search(r"\.(\d+)\.", stem)
    number = layer[1] if layer else ""
    target = names.get(stem.replace(f".{number}.", ".{n}.", 1) if layer else stem)
    if target is None:
        raise TrainingError(f"unknown tensor {name}")
    return f"{target.format(n=number)}.{kind}"


def _halves_to_pairs(array: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Reorder the rows of a query or key matrix from transformers' rotary order (halves) to llama.cpp's (pairs)."""
    rows, width = array.shape
    pairs: np.ndarray[Any, Any] = array.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2)
    return pairs.reshape(rows, width)


def _pairs_to_halves(array: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Reorder the rows of a query or key matrix from llama.cpp's rotary order (pairs) to transformers' (halves)."""
    rows, width = array.shape
    halves: np.ndarray[Any, Any] = array.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2)
    return halves.reshape(rows, width)


def _llama_keys(writer: Any, config: Mapping[str, Any]) -> None:
    heads = int(config["num_attention_heads"])
    rope = config.get("rope_parameters") or {}
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(float(config.get("rope_theta") or rope.get("rope_theta") or 10_000.0))
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_vocab_size(config["vocab_size"])


def _bigcode_keys(writer: Any, config: Mapping[str, Any]) -> None:
    if not config.get("multi_query", True):
        raise TrainingError("gpt_bigcode without multi-query attention cannot be converted")
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(config.get("n_inner") or 4 * config["n_embd"])
    writer.add_block_count(config["n_layer"])
    writer.add_head_count(config["n_head"])
    writer.add_head_count_kv(1)
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])


def tokenizer_keys(writer: Any, tables: Tables) -> None:
    """Add the metadata of a byte-level BPE tokenizer to a `gguf.GGUFWriter`."""
    normal, control = 1, 3
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tables.pre)
    writer.add_token_list(list(tables.tokens))
    writer.add_token_types([control if number in tables.control else normal for number in range(len(tables.tokens))])
    writer.add_token_merges(list(tables.merges))
    writer.add_add_bos_token(tables.ends)
    if tables.ends:
        writer.add_add_eos_token(True)
    writer.add_add_space_prefix(False)
    for key, number in tables.ids.items():
        writer.add_uint32(key, number)
