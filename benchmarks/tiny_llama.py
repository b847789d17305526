"""Write a fast model as a GGUF file: a Llama or Qwen2 of one layer with random weights. Its texts mean nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import gguf
import numpy as np

WIDTH, INNER, HEADS = 64, 96, 4
MARKERS = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")


def write_tiny_llama(file: Path, architecture: Literal["llama", "qwen2"] = "llama") -> Path:
    """Write the model to `file`, and return `file`. The weights are the same in each run.

    The vocabulary has a token for each byte, the token "in", a token for the end of the text, and the markers for
    fill-in-the-middle.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + number) for number in range(len(others))]
    tokens = [*letters, "in", "<|endoftext|>", *MARKERS]
    kinds = [gguf.TokenType.NORMAL] * (len(letters) + 1) + [gguf.TokenType.CONTROL] * (1 + len(MARKERS))
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_name("tiny llama")
    writer.add_block_count(1)
    writer.add_context_length(4_096)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["i n"])
    writer.add_eos_token_id(tokens.index("<|endoftext|>"))
    for name, marker in zip(("pre", "suf", "mid"), MARKERS, strict=True):
        writer.add_uint32(f"tokenizer.ggml.fim_{name}_token_id", tokens.index(marker))
    rng = np.random.default_rng(0)
    shapes = {
        "token_embd": (len(tokens), WIDTH),
        "output": (len(tokens), WIDTH),
        **{f"blk.0.attn_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")},
        "blk.0.ffn_gate": (INNER, WIDTH),
        "blk.0.ffn_up": (INNER, WIDTH),
        "blk.0.ffn_down": (WIDTH, INNER),
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.normal(scale=0.3, size=shape).astype(np.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    if architecture == "qwen2":
        for part in ("q", "k", "v"):
            writer.add_tensor(f"blk.0.attn_{part}.bias", rng.normal(scale=0.3, size=WIDTH).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
