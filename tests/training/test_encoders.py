"""An embedding model is converted to GGUF. The engine computes the same vectors from it as transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lsp_server.cli import main
from policy.engine.embedding import embedding_model
from policy.models import locate
from policy.training.encoders import import_encoder
from policy.training.importing import run
from policy.training.manifest import TrainingError
from tests.checkpoints import bert, roberta, roberta_tokenizer, wordpiece

TEXTS = [
    "def area(width, height): return width * height", "class Area2_x: ARea => 5", "a", "wide\n\theight  == 12345",
    "Größe", "É zone", "unknown 語 words", "area_height[3] # + 1", "return", "x" * 200,
]  # fmt: skip
Tokenizer = Callable[[Path], int]


def checkpoint(folder: Path, make: Callable[[int], Any], tokenizer: Tokenizer) -> Any:
    """Write a model with random weights and its tokenizer to `folder`, and return the model."""
    size = tokenizer(folder)
    torch.manual_seed(1)
    model = make(size).eval()
    for parameter in model.parameters():  # also norms and biases, so that no two tensors can be confused
        parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model


def expected(model: Any, folder: Path, pool: Callable[[torch.Tensor], torch.Tensor]) -> NDArray[np.float32]:
    """Return the unit vectors of `TEXTS` that transformers computes. `pool` makes a vector from the states."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(64)
    rows = []
    with torch.no_grad():
        for text in TEXTS:
            states = model(torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
            rows.append(torch.nn.functional.normalize(pool(states), dim=0).numpy())
    return np.stack(rows)


def mean(states: torch.Tensor) -> torch.Tensor:
    return states.mean(0)


def check_vectors(out: Path, wanted: NDArray[np.float32], least: float = 0.999) -> None:
    with embedding_model(out) as embed:
        found = embed(TEXTS)
    cosines = (found * wanted).sum(1) / np.linalg.norm(found, axis=1)
    assert cosines.min() > least
    # Without this check, the cosines would also be high if a model gave each text the same vector.
    assert np.median(wanted @ wanted.T) < 0.95


def cased(folder: Path) -> int:
    return wordpiece(folder, lowercase=False)


@pytest.mark.parametrize("type_", ["F32", "F16"])
@pytest.mark.parametrize(("make", "tokenizer"), [(bert, wordpiece), (bert, cased), (roberta, roberta_tokenizer)])
def test_vectors_equal_those_of_transformers(
    make: Callable[[int], Any], tokenizer: Tokenizer, type_: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = checkpoint(tmp_path / "model", make, tokenizer)
    out = tmp_path / "model.gguf"
    assert main(["model", "import", str(tmp_path / "model"), "--out", str(out), "--type", type_]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    check_vectors(out, expected(model, tmp_path / "model", mean))


def test_a_quantized_model_gives_nearly_the_same_vectors(tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "model", bert, wordpiece)
    out = run(tmp_path / "model", tmp_path / "model.gguf")
    check_vectors(out, expected(model, tmp_path / "model", mean), least=0.99)


def test_the_folder_says_how_states_become_a_vector(tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "model", bert, wordpiece)
    pooling = tmp_path / "model" / "1_Pooling"
    pooling.mkdir()
    (pooling / "config.json").write_text('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}')
    import_encoder(tmp_path / "model", tmp_path / "model.gguf", "F32")
    check_vectors(tmp_path / "model.gguf", expected(model, tmp_path / "model", lambda states: states[0]))


def test_a_model_with_a_head_for_another_task_is_converted_without_it(tmp_path: Path) -> None:
    from transformers import BertForMaskedLM

    model = checkpoint(tmp_path / "model", lambda size: BertForMaskedLM(bert(size).config), wordpiece)
    import_encoder(tmp_path / "model", tmp_path / "model.gguf", "F32")
    check_vectors(tmp_path / "model.gguf", expected(model.bert, tmp_path / "model", mean))


def test_an_embedding_model_is_not_offered_for_completions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_names, **_options: str(tmp_path / "cache"))
    checkpoint(tmp_path / "tiny", bert, wordpiece)
    out = run(tmp_path / "tiny")
    assert out == tmp_path / "cache" / "embedding" / "tiny-Q8_0.gguf"
    assert out.is_file()
    assert out not in [model.path for model in locate.installed()]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"hidden_act": "relu"}, "hidden_act 'relu'"),
        ("config.json", {"vocab_size": 3}, "the model has 3 rows"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pooling_mode_max_tokens"),
        ("modules.json", [{"path": "2_Dense", "type": "models.Dense"}], "'Dense'"),
    ],
)
def test_a_part_that_is_not_supported_is_named(file: str, change: Any, message: str, tmp_path: Path) -> None:
    checkpoint(tmp_path / "model", bert, wordpiece)
    target = tmp_path / "model" / file
    target.parent.mkdir(exist_ok=True)
    known = json.loads(target.read_text()) if target.is_file() else {}
    target.write_text(json.dumps(known | change if isinstance(change, dict) else change))
    with pytest.raises(TrainingError, match=message):
        import_encoder(tmp_path / "model", tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()
