"""A Hugging Face checkpoint is converted to GGUF. llama.cpp computes the same logits from it as transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lsp_server.cli import main
from policy.engine.settings import EngineSettings
from policy.engine.worker.batching import Row
from policy.engine.worker.llama import Llama
from policy.training.convert import configuration, import_folder, weights
from policy.training.manifest import TrainingError
from tests.checkpoints import bigcode, llama, save, tokenizer

TEXT = "def area(w, h):\n    return w * 1234"


@pytest.mark.parametrize(("make", "digits"), [(bigcode, True), (llama, False)])
def test_logits_equal_those_of_transformers(
    make: Callable[[int], Any], digits: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save(make, tmp_path / "model", digits)
    out = tmp_path / "model.gguf"
    assert main(["model", "import", str(tmp_path / "model"), "--out", str(out), "--type", "F32"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    engine = Llama(tmp_path / "model.gguf", EngineSettings(context_size=128, threads=1))
    try:
        from tokenizers import Tokenizer

        tokens = engine.encode(TEXT)
        assert engine.metadata["repoformer.layout"] == "repoformer"
        assert tokens == Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json")).encode(TEXT).ids
        ids = engine.vocabulary().ids
        assert (ids["prefix"], ids["middle"], ids["suffix"], ids["cc"], ids["eof"]) == (1, 2, 3, 4, 5)
        tokens = [ids["prefix"], *tokens, ids["eof"]]
        assert engine.decode([Row(token, pos, 0, True) for pos, token in enumerate(tokens)]) == "ok"
        with torch.no_grad():
            expected = model(torch.tensor([tokens])).logits[0].numpy()
        for pos, row in enumerate(expected):
            difference = np.abs(engine.logits(pos) - row).max()
            assert difference < 1e-3 * np.abs(row).max()
    finally:
        engine.close()


def test_weights_survive_conversion_to_gguf(tmp_path: Path) -> None:
    size = tokenizer(tmp_path / "model", digits=False)
    model = llama(size)
    model.save_pretrained(tmp_path / "model")
    import_folder(tmp_path / "model", tmp_path / "model.gguf", {}, "F32")
    config, state = configuration(tmp_path / "model.gguf"), weights(tmp_path / "model.gguf")
    assert (config["tie_word_embeddings"], config["rope_theta"], config["num_key_value_heads"]) == (False, 5_000.0, 2)
    expected = model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    size = tokenizer(tmp_path / "model", digits=True)
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "t5", "vocab_size": size}))
    with pytest.raises(TrainingError, match="no conversion for 't5'"):
        import_folder(tmp_path / "model", tmp_path / "model.gguf", {})


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"has no tokenizer\.json"):
        import_folder(tmp_path, tmp_path / "model.gguf", {})
