"""Importing a Hugging Face checkpoint: llama.cpp must compute what transformers computes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from policy.engine.llama import Llama, Row
from policy.engine.settings import EngineSettings
from policy.training.convert import configuration, import_folder, weights
from policy.training.manifest import TrainingError

TEXT = "def area(w, h):\n    return w * 1234"
SPECIAL = ["<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<cfc_info>", "<end_rc>"]


def _tokenizer(folder: Path, digits: bool) -> int:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from tokenizers.trainers import BpeTrainer

    inner = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    splits = [pre_tokenizers.Digits(individual_digits=True), level] if digits else [level]
    inner.pre_tokenizer = pre_tokenizers.Sequence(splits)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False)
    inner.train_from_iterator(["def area(w, h): return 12 * 1234 + 34"] * 9, trainer)
    folder.mkdir()
    inner.save(str(folder / "tokenizer.json"))
    return int(inner.get_vocab_size())


def _bigcode(size: int) -> object:
    return transformers.GPTBigCodeForCausalLM(
        transformers.GPTBigCodeConfig(
            vocab_size=size, n_positions=128, n_embd=64, n_layer=2, n_head=4, attention_softmax_in_fp32=True,
            scale_attention_softmax_in_fp32=True, tie_word_embeddings=True,
        )
    )  # fmt: skip


def _llama(size: int) -> object:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=size, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=False, rope_theta=5_000.0,
        )
    )  # fmt: skip


@pytest.mark.parametrize(("make", "digits"), [(_bigcode, True), (_llama, False)])
def test_logits_are_those_of_transformers(make: object, digits: bool, tmp_path: Path) -> None:
    size = _tokenizer(tmp_path / "model", digits)
    torch.manual_seed(1)
    model = make(size).eval()  # type: ignore[operator]
    for parameter in model.parameters():  # biases and norms begin as zeros and ones, which would hide a mix-up
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "model")
    import_folder(tmp_path / "model", tmp_path / "model.gguf", {"repoformer.layout": "repoformer"}, "F32")
    llama = Llama(tmp_path / "model.gguf", EngineSettings(context_size=128, threads=1))
    try:
        from tokenizers import Tokenizer

        tokens = llama.encode(TEXT)
        assert tokens == Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json")).encode(TEXT).ids
        ids = llama.vocabulary().ids
        assert (ids["prefix"], ids["middle"], ids["suffix"], ids["cc"], ids["eof"]) == (1, 2, 3, 4, 5)
        tokens = [ids["prefix"], *tokens, ids["eof"]]
        assert llama.decode([Row(token, pos, 0, True) for pos, token in enumerate(tokens)]) == "ok"
        with torch.no_grad():
            expected = model(torch.tensor([tokens])).logits[0].numpy()
        for pos, row in enumerate(expected):
            difference = np.abs(llama.logits(pos) - row).max()
            assert difference < 1e-3 * np.abs(row).max()
    finally:
        llama.close()


def test_weights_come_back_out_of_a_gguf(tmp_path: Path) -> None:
    size = _tokenizer(tmp_path / "model", digits=False)
    model = _llama(size)
    model.save_pretrained(tmp_path / "model")  # type: ignore[attr-defined]
    import_folder(tmp_path / "model", tmp_path / "model.gguf", {}, "F32")
    said, state = configuration(tmp_path / "model.gguf"), weights(tmp_path / "model.gguf")
    assert (said["tie_word_embeddings"], said["rope_theta"], said["num_key_value_heads"]) == (False, 5_000.0, 2)
    expected = model.state_dict()  # type: ignore[attr-defined]
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    size = _tokenizer(tmp_path / "model", digits=True)
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "t5", "vocab_size": size}))
    with pytest.raises(TrainingError, match="no conversion for 't5'"):
        import_folder(tmp_path / "model", tmp_path / "model.gguf", {})


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"has no tokenizer\.json"):
        import_folder(tmp_path, tmp_path / "model.gguf", {})
