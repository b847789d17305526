"""Write a tiny BERT embedding model with random weights, whose tokens are characters, as a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz0123456789_()=:.,")
LONGEST = 64  # the largest number of tokens in a text


def write_bert(
    file: Path,
    vocabulary: Sequence[str],
    tensors: Mapping[str, NDArray[np.float32]],
    *,
    longest: int,
    heads: int,
) -> None:
    """Write a BERT model with mean pooling as a GGUF file.

    `tensors` has the weights, with llama.cpp's names as keys. `vocabulary` is a WordPiece vocabulary.
    """
    writer = gguf.GGUFWriter(file, "bert")
    writer.add_name(file.stem)
    writer.add_block_count(sum(name.endswith("ffn_up.weight") for name in tensors))
    writer.add_context_length(longest)
    writer.add_embedding_length(tensors["token_embd.weight"].shape[1])
    writer.add_feed_forward_length(len(tensors["blk.0.ffn_up.weight"]))
    writer.add_head_count(heads)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_tokenizer_model("bert")
    writer.add_token_list([_spelled(token) for token in vocabulary])
    control = gguf.TokenType.CONTROL
    writer.add_token_types([control if token in SPECIAL else gguf.TokenType.NORMAL for token in vocabulary])
    writer.add_token_type_count(2)
    for add, token in (
        (writer.add_pad_token_id, "[PAD]"),
        (writer.add_unk_token_id, "[UNK]"),
        (writer.add_bos_token_id, "[CLS]"),
        (writer.add_sep_token_id, "[SEP]"),
        (writer.add_mask_token_id, "[MASK]"),
    ):
        add(list(vocabulary).index(token))
    for name, values in tensors.items():
        writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tiny_bert(file: Path, width: int = 32) -> Path:
    """Write a model of one layer, and return `file`. The weights are random, but the same in each run."""
    vocabulary = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (len(vocabulary), width),
        "position_embd.weight": (LONGEST, width),
        "token_types.weight": (2, width),
        **{f"blk.0.attn_{part}.weight": (width, width) for part in ("q", "k", "v", "output")},
        "blk.0.ffn_up.weight": (2 * width, width),
        "blk.0.ffn_down.weight": (width, 2 * width),
    }
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for part in ("q", "k", "v", "output"):
        tensors[f"blk.0.attn_{part}.bias"] = np.zeros(width, np.float32)
    tensors["blk.0.ffn_up.bias"] = np.zeros(2 * width, np.float32)
    tensors["blk.0.ffn_down.bias"] = np.zeros(width, np.float32)
    for norm in ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"):
        tensors[f"{norm}.weight"] = np.ones(width, np.float32)
        tensors[f"{norm}.bias"] = np.zeros(width, np.float32)
    write_bert(file, vocabulary, tensors, longest=LONGEST, heads=4)
    return file


def _spelled(token: str) -> str:
    """Convert a token of a WordPiece vocabulary to llama.cpp's form.

    WordPiece marks tokens within a word, by `##`. llama.cpp marks tokens that begin a word, by U+2581.
    """
    if token in SPECIAL or (token.startswith("[") and token.endswith("]")):
        return token
    return token[2:] if token.startswith("##") else f"\u2581{token}"
