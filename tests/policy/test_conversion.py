"""The copy of a model whose feed-forward weights are converted to Q4_0."""

from __future__ import annotations

import os
import time
from pathlib import Path

import gguf
import numpy as np
import platformdirs
import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

from policy.engine.settings import EngineSettings
from policy.engine.worker import conversion
from policy.engine.worker.conversion import convert, fast_copy
from policy.engine.worker.llama import Llama
from policy.engine.worker.native import Native, load
from policy.errors import EngineFailed
from policy.models import card
from policy.models.card import CONVERTED
from tests.standin_index import make_card

ROWS, COLUMNS = 8, 512
KEPT = {"token_embd.weight": Type.Q5_0, "blk.0.attn_q.weight": Type.Q5_0, "blk.0.ffn_norm.weight": Type.F32}
CHANGED = {"blk.0.ffn_gate.weight": Type.Q5_0, "blk.0.ffn_up.weight": Type.Q8_0}


@pytest.fixture
def native() -> Native:
    return load()


@pytest.fixture
def flagged(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose card says that its weights are converted."""
    make_card(tmp_path / "cards", model.read_bytes(), **{CONVERTED: "Q4_0"})
    monkeypatch.setattr(card, "FOLDER", tmp_path / "cards")
    return model


def write(file: Path, types: dict[str, Type]) -> dict[str, np.ndarray]:
    """Write a GGUF file with random weights, and return them."""
    writer, dice, weights = gguf.GGUFWriter(file, "llama"), np.random.default_rng(0), {}
    writer.add_string("general.name", "a model")
    writer.add_array("tokenizer.ggml.tokens", ["a", "é", "b"])
    for name, type_ in types.items():
        weights[name] = dice.normal(size=(ROWS, COLUMNS)).astype(np.float32)
        writer.add_tensor(name, quantize(weights[name], type_), raw_dtype=type_)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return weights


def test_only_the_feed_forward_weights_change(tmp_path: Path, native: Native) -> None:
    source, target = tmp_path / "model.gguf", tmp_path / "copy.gguf"
    weights = write(source, KEPT | CHANGED)
    convert(source, target, native)
    before, after = gguf.GGUFReader(source), gguf.GGUFReader(target)
    assert [field.contents() for field in after.fields.values()][3:] == [
        field.contents() for field in before.fields.values()
    ][3:]
    assert [(tensor.name, list(tensor.shape)) for tensor in after.tensors] == [
        (tensor.name, list(tensor.shape)) for tensor in before.tensors
    ]
    for old, new in zip(before.tensors, after.tensors, strict=True):
        if old.name in KEPT:
            assert (new.tensor_type, new.data.tobytes()) == (old.tensor_type, old.data.tobytes())
        else:
            assert new.tensor_type == Type.Q4_0
            error = np.abs(dequantize(new.data, Type.Q4_0) - weights[new.name])
            assert 0 < error.max() < 0.5, "a step of Q4_0 is an eighth of the largest weight of its block"


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path, native: Native) -> None:
    source = tmp_path / "model.gguf"
    source.write_bytes(b"no model" * 100)
    with pytest.raises(EngineFailed, match="not a GGUF file"):
        convert(source, tmp_path / "copy.gguf", native)


def test_only_models_whose_card_says_so_have_a_copy(model: Path, tmp_path: Path, native: Native) -> None:
    assert fast_copy(model, native, pytest.fail, tmp_path / "converted") == model
    assert not (tmp_path / "converted").exists()


def test_the_copy_is_made_once(flagged: Path, tmp_path: Path, native: Native) -> None:
    folder, said = tmp_path / "converted", list[str]()
    folder.mkdir()
    other_version = folder / f"{flagged.stem}-0123456789abcdef-0.gguf"
    abandoned, in_progress = folder / f"{flagged.stem}-a.1.part", folder / f"{flagged.stem}-b.2.part"
    for file in (other_version, abandoned, in_progress):
        file.write_bytes(b"")
    hour_ago = time.time() - 3600
    os.utime(abandoned, (hour_ago, hour_ago))
    copy = fast_copy(flagged, native, said.append, folder)
    assert sorted(folder.iterdir()) == sorted([copy, in_progress])
    assert len(said) == 1
    made = copy.stat()
    assert fast_copy(flagged, native, pytest.fail, folder) == copy
    assert copy.stat() == made


@pytest.mark.parametrize("problem", ["a file instead of the folder", "a full disk", "an error while it is written"])
def test_without_a_copy_the_model_is_used_as_it_is(
    problem: str, flagged: Path, tmp_path: Path, native: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, said = tmp_path / "converted", list[str]()
    if problem == "a file instead of the folder":
        folder.write_text("")
    elif problem == "a full disk":
        monkeypatch.setattr(conversion, "_SPARE_BYTES", 1 << 60)
    else:

        def broken(_source: Path, target: Path, _native: Native) -> None:
            target.write_bytes(b"a part")
            raise OSError("no space left")

        monkeypatch.setattr(conversion, "convert", broken)
    assert fast_copy(flagged, native, said.append, folder) == flagged
    assert len(said) == 1
    assert not folder.is_dir() or not list(folder.iterdir())


def test_a_damaged_copy_is_deleted(flagged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_names, **_options: str(tmp_path))
    settings, said = EngineSettings(context_size=256, threads=1, gpu_layers=0), list[str]()
    first = Llama(flagged, settings, convert=True, log=said.append)
    first.close()
    assert first.file.parent == tmp_path / "converted"
    first.file.write_bytes(first.file.read_bytes()[:100_000])
    second = Llama(flagged, settings, convert=True, log=said.append)
    second.close()
    assert second.file == flagged
    assert "was deleted" in said[-1]
    assert not first.file.exists()
