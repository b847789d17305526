"""Convert embedding models of the BERT and RoBERTa architectures from transformers to GGUF.

all-MiniLM-L6-v2 is a BERT model, and UniXcoder a RoBERTa model. Like `convert.py`, this module runs no code from the
model's folder. The metadata of the GGUF says how the states of a text's tokens become one vector. A folder of
sentence-transformers names this method; without a name, it is the mean. Modules after the pooling that only normalize
the vector are left out, because the index normalizes every vector. All other modules are refused.

Source of the tensor names and keys: the GGUF specification and llama.cpp's `conversion/bert.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .convert import Type, read_folder, renamed, save_gguf, state_of, tables_of, tokenizer_keys
from .manifest import TrainingError

if TYPE_CHECKING:
    import torch

KINDS = ("bert", "roberta")

_NAMES: Mapping[str, str] = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "encoder.layer.{n}.attention.self.query": "blk.{n}.attn_q",
    "encoder.layer.{n}.attention.self.key": "blk.{n}.attn_k",
    "encoder.layer.{n}.attention.self.value": "blk.{n}.attn_v",
    "encoder.layer.{n}.attention.output.dense": "blk.{n}.attn_output",
    "encoder.layer.{n}.attention.output.LayerNorm": "blk.{n}.attn_output_norm",
    "encoder.layer.{n}.intermediate.dense": "blk.{n}.ffn_up",
    "encoder.layer.{n}.output.dense": "blk.{n}.ffn_down",
    "encoder.layer.{n}.output.LayerNorm": "blk.{n}.layer_output_norm",
}
# Parts that do not contribute to the states of the tokens: heads for other tasks, and a table that is 0, 1, 2, ….
_UNUSED = ("pooler.", "cls.", "lm_head.", "classifier.", "embeddings.position_ids")


def is_encoder(folder: Path) -> bool:
    """Return whether the `config.json` in `folder` describes a model that this module converts."""
    try:
        return json.loads((folder / "config.json").read_text("utf-8")).get("model_type") in KINDS
    except (OSError, ValueError, AttributeError):
        return False  # `convert.import_folder` reports what is wrong with the file


def import_encoder(folder: Path, out: Path, type_: Type = "F16") -> None:
    """Convert the embedding model in `folder` to the GGUF file `out`.

    If a part of the checkpoint is missing, unknown or not supported, raises a `TrainingError` that names this part.
    """
    config, tokenizer = read_folder(folder)
    pooling = _pooling(folder)
    _check(config)

    def add_keys(writer: Any) -> None:
        writer.add_name(str(config.get("_name_or_path") or folder.name))
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_context_length(config["max_position_embeddings"] - _offset(config))
        writer.add_embedding_length(config["hidden_size"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count(config["num_attention_heads"])
        writer.add_layer_norm_eps(config["layer_norm_eps"])
        writer.add_causal_attention(False)
        writer.add_pooling_type(pooling)
        writer.add_token_type_count(config["type_vocab_size"])
        if tokenizer["model"].get("type") == "WordPiece":
            _wordpiece_keys(writer, tokenizer, int(config["vocab_size"]))
        else:
            tokenizer_keys(writer, replace(tables_of(tokenizer, int(config["vocab_size"])), ends=True))

    save_gguf(out, "bert", add_keys, _tensors(config, state_of(folder)), type_)


def _check(config: Mapping[str, Any]) -> None:
    """Raise `TrainingError` if llama.cpp would compute something else than transformers."""
    for key, only in (("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
        if config.get(key, only) != only:
            raise TrainingError(f"{config['model_type']} with {key} {config[key]!r} cannot be converted")


def _pooling(folder: Path) -> int:
    """Return llama.cpp's number of the method by which the states of the tokens become one vector."""
    from gguf import PoolingType

    modules = _json(folder / "modules.json") or []
    kinds = {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in modules}
    if unknown := kinds.keys() - {"Transformer", "Pooling", "Normalize"}:
        raise TrainingError(f"no conversion for the module {unknown.pop()!r} after the encoder")
    settings = _json(folder / kinds.get("Pooling", "1_Pooling") / "config.json") or {}
    names = {key for key, value in settings.items() if key.startswith("pooling_mode_") and value is True}
    methods = {"pooling_mode_mean_tokens": PoolingType.MEAN, "pooling_mode_cls_token": PoolingType.CLS}
    if len(names) > 1 or not names <= methods.keys():
        raise TrainingError(f"no conversion for the pooling {', '.join(sorted(names))}")
    return methods[names.pop()] if names else PoolingType.MEAN


def _json(file: Path) -> Any:
    """Return the content of a JSON file, or None if there is no such file."""
    try:
        return json.loads(file.read_text("utf-8")) if file.is_file() else None
    except ValueError as problem:
        raise TrainingError(f"{file} is damaged ({problem})") from problem


def _offset(config: Mapping[str, Any]) -> int:
    """Return the row of the position table that belongs to the first token: RoBERTa starts after the padding's id."""
    return int(config["pad_token_id"]) + 1 if config["model_type"] == "roberta" else 0


def _tensors(
    config: Mapping[str, Any], state: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, np.ndarray[Any, np.dtype[np.float32]]]]:
    for name, tensor in state.items():
        short = name.removeprefix(f"{config['model_type']}.")  # a model with a head for another task has this prefix
        if short.startswith(_UNUSED):
            continue
        # Checkpoints that were converted from TensorFlow have the original names of the parameters of a norm.
        target = renamed(short.replace(".gamma", ".weight").replace(".beta", ".bias"), _NAMES)
        array = tensor.float().numpy()
        if target == "token_embd.weight" and len(array) != config["vocab_size"]:
            raise TrainingError(f"{len(array)} rows in the embedding, {config['vocab_size']} tokens in the vocabulary")
        yield target, array[_offset(config) :] if target == "position_embd.weight" else array


def _wordpiece_keys(writer: Any, tokenizer: Mapping[str, Any], size: int) -> None:
    normal, control, unused = 1, 3, 5
    vocabulary: Mapping[str, int] = tokenizer["model"]["vocab"]
    tokens = {number: token for token, number in vocabulary.items()}
    added = {entry["content"]: entry["id"] for entry in tokenizer.get("added_tokens", ())}
    tokens |= {number: token for token, number in added.items()}
    if tokens and max(tokens) >= size:
        raise TrainingError(f"token {tokens[max(tokens)]!r} has id {max(tokens)}, the model has {size} rows")
    special = frozenset(added.values())
    writer.add_tokenizer_model("bert")
    writer.add_token_list([_spelled(tokens.get(number, f"[PAD{number}]")) for number in range(size)])
    writer.add_token_types(
        [control if number in special else normal if number in tokens else unused for number in range(size)]
    )
    for token, add in (
        ("[PAD]", writer.add_pad_token_id),
        ("[UNK]", writer.add_unk_token_id),
        ("[CLS]", writer.add_bos_token_id),
        ("[SEP]", writer.add_sep_token_id),
        ("[MASK]", writer.add_mask_token_id),
    ):
        if token not in vocabulary:
            raise TrainingError(f"the vocabulary has no {token}")
        add(vocabulary[token])
    normalizer = tokenizer.get("normalizer") or {}
    lowercase = bool(normalizer.get("lowercase", True))
    accents = normalizer.get("strip_accents")
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", lowercase)
    writer.add_bool("tokenizer.ggml.normalizer.strip_accents", lowercase if accents is None else bool(accents))


def _spelled(token: str) -> str:
    """Convert a token of a WordPiece vocabulary to llama.cpp's form.

    WordPiece marks tokens within a word, by `##`. llama.cpp marks tokens that begin a word, by U+2581.
    """
    if token.startswith("[") and token.endswith("]"):
        return token
    return token[2:] if token.startswith("##") else f"\u2581{token}"
