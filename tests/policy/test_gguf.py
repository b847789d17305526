"""The error messages for files that are damaged or are not models for code completion."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policy.errors import ModelInvalid, ModelMissing
from policy.models.gguf import check_generator, read_header
from tests.tiny_gguf import F32, LLAMA, Q4_0, gguf, text


def write(folder: Path, content: bytes, name: str = "model.gguf") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_a_header_is_read(tmp_path: Path) -> None:
    metadata = LLAMA | {
        "tokenizer.ggml.tokens": ["a", "ä", "<cc>"],
        "tokenizer.ggml.scores": [3, 1, -2],
        "llama.rope.freq_base": 0.5,
        "tokenizer.ggml.add_bos_token": False,
    }
    header = check_generator(write(tmp_path, gguf(metadata, tensors=3)))
    assert header.metadata == metadata | {
        "tokenizer.ggml.tokens": ("a", "ä", "<cc>"),
        "tokenizer.ggml.scores": (3, 1, -2),
    }
    assert (header.version, header.tensors, header.architecture) == (3, 3, "llama")
    assert header.number("llama.block_count") == 2
    assert (header.number("absent", 7), header.text("llama.block_count")) == (7, "")


@pytest.mark.parametrize("kind", [F32, Q4_0])
def test_the_size_of_a_complete_file_is_exact(tmp_path: Path, kind: int) -> None:
    content = gguf(LLAMA, tensors=2, kind=kind)
    assert read_header(write(tmp_path, content)).data_end == len(content)
    with pytest.raises(ModelInvalid, match=f"incomplete: {len(content) - 1:,} of {len(content):,} bytes. Download"):
        check_generator(write(tmp_path, content[:-1]))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"general.architecture": "bert", "tokenizer.ggml.model": "bert"}, r"embedding model \(bert\)"),
        (LLAMA | {"general.architecture": "qwen3", "qwen3.pooling_type": 3}, r"embedding model \(qwen3\)"),
        ({"general.architecture": "clip"}, "an image projector"),
        (LLAMA | {"general.type": "mmproj"}, "an image projector"),
        (LLAMA | {"general.type": "adapter"}, "a LoRA adapter"),
        ({"general.architecture": "whisper"}, "a speech recognition model"),
        ({"tokenizer.ggml.model": "gpt2"}, "general.architecture is missing"),
        ({"general.architecture": "llama"}, "contains no tokenizer"),
        (LLAMA | {"split.count": 3, "split.no": 1}, "is part 2 of 3 of a split model. Use the path of the first part"),
        (LLAMA | {"split.count": 2, "split.no": 0}, "its folder lacks others: model-00002-of-00002.gguf"),
    ],
)
def test_another_kind_of_file_is_named(tmp_path: Path, metadata: dict[str, Any], message: str) -> None:
    path = write(tmp_path, gguf(metadata), "model-00001-of-00002.gguf")
    with pytest.raises(ModelInvalid, match=message):
        check_generator(path)


def test_the_first_part_of_a_whole_split_model_is_taken(tmp_path: Path) -> None:
    write(tmp_path, b"", "m-00002-of-00002.gguf")
    path = write(tmp_path, gguf(LLAMA | {"split.count": 2, "split.no": 0}), "m-00001-of-00002.gguf")
    assert check_generator(path).number("split.count") == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged or incomplete"),
        (b"<html>404</html>", "not a GGUF file"),
        (gguf(LLAMA, magic=b"GGML"), "not a GGUF file"),
        (gguf(LLAMA, version=1), "version 1"),
        (gguf(LLAMA, version=3 << 24), "big-endian"),
        (gguf(LLAMA, tensors=0), "only a vocabulary"),
        (gguf(LLAMA)[:40], "damaged or incomplete"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + struct.pack("<Q", 1 << 60), "damaged or incomplete"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + text("x") + struct.pack("<I", 99), "damaged or incomplete"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ModelInvalid, match=message) as caught:
        check_generator(write(tmp_path, content))
    assert str(tmp_path) in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="no model at"):
        read_header(tmp_path / "absent.gguf")
    with pytest.raises(ModelMissing, match="cannot be read"):
        read_header(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cut=st.integers(0, 400), at=st.integers(0, 400), byte=st.integers(0, 255))
def test_damage_raises_only_model_errors(tmp_path: Path, cut: int, at: int, byte: int) -> None:
    content = bytearray(gguf(LLAMA, tensors=2))
    content[at % len(content)] = byte
    path = write(tmp_path, bytes(content[: len(content) - cut]))
    try:
        check_generator(path)
    except ModelInvalid as error:
        assert str(path) in str(error)
