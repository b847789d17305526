"""Quantization: the type of each tensor, and a comparison with the files of llama.cpp's own quantizer."""

from __future__ import annotations

import ctypes
from pathlib import Path

import gguf
import numpy as np
import pytest

from policy.engine.libraries import PACKAGES
from policy.training.manifest import TrainingError
from policy.training.quantizing import FILE_TYPES, TYPES, quantize, types_of

NATIVE = PACKAGES[0].file()
LLAMA = ("attn_k", "attn_norm", "attn_output", "attn_q", "attn_v", "ffn_down", "ffn_gate", "ffn_norm", "ffn_up")
STARCODER = ("attn_norm", "attn_output", "attn_qkv", "ffn_down", "ffn_norm", "ffn_up")


def names(kinds: tuple[str, ...], layers: int, *more: str) -> list[str]:
    return [*more, *(f"blk.{layer}.{kind}.weight" for layer in range(layers) for kind in kinds)]


def check_types(listed: list[str], columns: int, type_: str, expect: dict[str, str | None]) -> None:
    found = types_of(listed, dict.fromkeys(listed, columns), type_)
    assert {name: found[name] for name in expect} == expect


def test_the_last_layers_get_more_bits() -> None:
    listed = names(LLAMA, 8, "output.weight", "token_embd.weight")
    check_types(
        listed,
        512,
        "Q4_K_M",
        {
            "output.weight": "Q6_K",
            "token_embd.weight": "Q4_K",
            "blk.0.attn_v.weight": "Q6_K",
            "blk.1.attn_v.weight": "Q4_K",
            "blk.3.ffn_down.weight": "Q6_K",
            "blk.4.ffn_down.weight": "Q4_K",
            "blk.7.ffn_down.weight": "Q6_K",
            "blk.7.ffn_up.weight": "Q4_K",
            "blk.7.ffn_norm.weight": None,
        },
    )


def test_embeddings_that_are_also_the_output_get_its_type() -> None:
    listed = names(STARCODER, 4, "position_embd.weight", "token_embd.weight")
    check_types(listed, 512, "Q4_0", {"token_embd.weight": "Q6_K", "position_embd.weight": None})
    check_types(listed, 512, "Q8_0", {"token_embd.weight": "Q8_0", "blk.0.attn_qkv.weight": "Q8_0"})


@pytest.mark.parametrize(
    ("columns", "type_", "found"), [(576, "Q4_K_M", "Q5_0"), (576, "Q5_K_M", "Q5_1"), (40, "Q4_0", "F16")]
)
def test_rows_that_do_not_fit_get_another_type(columns: int, type_: str, found: str) -> None:
    check_types(names(LLAMA, 4), columns, type_, {"blk.1.ffn_up.weight": found})


def whole(folder: Path, architecture: str, kinds: tuple[str, ...], columns: int, *, tied: bool) -> Path:
    """Write a GGUF file with random weights in F16 that llama.cpp's quantizer accepts as a model.

    `columns` is the length of the rows of its tensors.
    """
    random = np.random.default_rng(0)
    path = folder / "whole.gguf"
    writer = gguf.GGUFWriter(path, architecture)
    layers = 8
    writer.add_string("general.name", "a test")
    writer.add_context_length(64)
    writer.add_embedding_length(columns)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(columns)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "ab"])
    writer.add_token_merges(["a b"])
    writer.add_token_types([1, 1, 1])
    more = ["token_embd.weight", "output_norm.weight", *([] if tied else ["output.weight"])]
    for name in names(kinds, layers, *more):
        flat = "norm" in name
        shape = (columns,) if flat else (16, columns)
        writer.add_tensor(name, random.standard_normal(shape).astype(np.float32 if flat else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize(("architecture", "kinds", "tied"), [("llama", LLAMA, False), ("starcoder", STARCODER, True)])
def test_a_file_in_another_type_says_the_same(
    tmp_path: Path, architecture: str, kinds: tuple[str, ...], tied: bool, type_: str
) -> None:
    source = whole(tmp_path, architecture, kinds, 256, tied=tied)
    quantize(source, tmp_path / "small.gguf", type_)
    before, after = gguf.GGUFReader(source), gguf.GGUFReader(tmp_path / "small.gguf")
    assert after.fields["general.file_type"].contents() == FILE_TYPES[type_][0]
    assert after.fields["tokenizer.ggml.tokens"].contents() == ["a", "b", "ab"]
    weights = {tensor.name: tensor for tensor in before.tensors}
    assert weights.keys() == {tensor.name for tensor in after.tensors}
    for tensor in after.tensors:
        exact = weights[tensor.name].data.astype(np.float32)
        close = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(exact.shape)
        assert np.abs(close - exact).mean() < 0.1, tensor.name


@pytest.mark.skipif(NATIVE is None, reason="needs llama.cpp's own quantizer; `make native` compiles it")
@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("columns", [512, 576, 40])
@pytest.mark.parametrize(("architecture", "kinds", "tied"), [("llama", LLAMA, False), ("starcoder", STARCODER, True)])
def test_a_file_is_the_one_that_llama_cpp_writes(
    tmp_path: Path, architecture: str, kinds: tuple[str, ...], tied: bool, columns: int, type_: str
) -> None:
    class Parameters(ctypes.Structure):
        _fields_ = (("nthread", ctypes.c_int32), ("ftype", ctypes.c_int), ("others", ctypes.c_ubyte * 256))

    source = whole(tmp_path, architecture, kinds, columns, tied=tied)
    quantize(source, tmp_path / "ours.gguf", type_)
    library = ctypes.CDLL(str(NATIVE))
    library.llama_backend_init()
    library.llama_model_quantize_default_params.restype = Parameters
    library.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(Parameters)]
    parameters = library.llama_model_quantize_default_params()
    parameters.ftype = FILE_TYPES[type_][0]
    theirs = tmp_path / "theirs.gguf"
    assert library.llama_model_quantize(str(source).encode(), str(theirs).encode(), ctypes.byref(parameters)) == 0
    assert (tmp_path / "ours.gguf").read_bytes() == theirs.read_bytes()


def test_a_file_that_is_quantized_already_is_refused(tmp_path: Path) -> None:
    source = whole(tmp_path, "llama", LLAMA, 256, tied=True)
    quantize(source, tmp_path / "small.gguf", "Q8_0")
    with pytest.raises(TrainingError, match="is Q8_0 and not F16 or F32"):
        quantize(tmp_path / "small.gguf", tmp_path / "smaller.gguf", "Q4_0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.gguf", "whole.gguf"]
