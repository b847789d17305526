"""The whole training of a tiny model, from archives of packages to a GGUF file that makes decisions in llama.cpp."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from policy.engine.settings import EngineSettings
from policy.engine.worker.batching import Row
from policy.engine.worker.llama import Llama
from policy.gating.gate import gates_of
from policy.models import locate
from policy.models.shards import sha256
from policy.prompting.prompt import LAYOUTS, PromptBuilder
from policy.training import (
    adapt,
    base,
    blanks,
    export,
    finetune,
    label,
    lora,
    manifest,
    probes,
    rounding,
)
from policy.training.compute import Compute
from policy.training.examples import ExampleBuilder
from policy.training.loss import nll
from tests.training.tiny import BUDGETS, NAMES, run_adapt


def test_the_corpus_keeps_hand_written_files(work: Path) -> None:
    kept = sorted(path.name for path in (work / "corpus" / "train").rglob("*.py"))
    assert kept == sorted(f"{name}.py" for name in NAMES)
    assert manifest.read(work / "corpus")["repositories"] == {"train": 1, "valid": 1, "test": 1}


def test_adaptation_lowers_the_loss(adapted: Path) -> None:
    rows = adapt.history(adapted)
    checks = [row["retrieve"] for row in rows if "retrieve" in row]
    assert checks[-1] < 0.8 * checks[0]
    assert np.mean([row["middle"] for row in rows[-4:]]) < np.mean([row["middle"] for row in rows[1:5]])


def test_a_stopped_and_resumed_run_ends_with_the_same_weights(work: Path, adapted: Path) -> None:
    run_adapt(work, "stopped", 9)
    again = run_adapt(work, "stopped", 24)
    whole, parts = (torch.load(folder / adapt.STATE, weights_only=True)["model"] for folder in (adapted, again))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    losses = [[row["middle"] for row in adapt.history(folder)[1:]] for folder in (adapted, again)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


def gradient_of(parameter: torch.nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def test_micro_batches_do_not_change_the_gradient(work: Path) -> None:
    from policy.training.loss import Weights, backward

    loaded = base.load(work / "base")
    builder = ExampleBuilder(work / "corpus", loaded, "repoformer-spm", BUDGETS)
    batch = adapt.batch_of(builder, blanks.load(work / "blanks" / "train.jsonl"), 0, 8, 0.5, 0)
    gradients = []
    for tokens in (100, 4000):
        loaded.model.zero_grad(set_to_none=True)
        losses = backward(loaded.model, batch, Weights(left=0.5), Compute(micro_tokens=tokens))
        gradients.append((losses.middle, [gradient_of(parameter).clone() for parameter in loaded.model.parameters()]))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-5)
    for few, many in zip(gradients[0][1], gradients[1][1], strict=True):
        assert torch.allclose(few, many, rtol=1e-3, atol=1e-6)


def test_own_labels_follow_the_model_s_likelihoods(work: Path, adapted: Path) -> None:
    from policy.training.loss import Weights, backward_own_labels, hidden_states, nll

    loaded = base.load(work / "base", weights=adapted / adapt.STATE)
    builder = ExampleBuilder(work / "corpus", loaded, "repoformer-spm", BUDGETS)
    data = blanks.eligible(blanks.load(work / "blanks" / "train.jsonl"), 0, 0)
    pairs = finetune.pairs_of(builder, data, {}, 0, 8, 0)
    plain, retrieved = (nll(loaded.model, [pair[side] for pair in pairs], Compute()) for side in (0, 1))
    gains = np.array(plain) - np.array(retrieved)
    least, cc = float(np.median(gains)), loaded.vocabulary.ids["cc"]

    def helps(without: float, with_: float) -> bool:
        return finetune.likelier(without, with_, least, 0.0)

    losses, share = backward_own_labels(
        loaded.model, pairs, Weights(decision=1.0), helps, cc, Compute(micro_tokens=100)
    )
    assert share == np.mean(gains > least)
    assert losses.middle == pytest.approx(
        (sum(plain) + sum(retrieved)) / sum(len(each.tokens) - each.middle for pair in pairs for each in pair), rel=1e-5
    )
    model: Any = loaded.model
    output = model.get_output_embeddings()
    expected = []
    for (example, _), gain in zip(pairs, gains, strict=True):
        hidden = hidden_states(loaded.model, [example.tokens[: example.decision]], "cpu")[0, -1].detach()
        logits = torch.log_softmax(hidden @ output.weight.detach().T, 0)
        expected.append(-float(logits[cc if gain > least else example.tokens[example.decision]]))
    assert losses.decision == pytest.approx(np.mean(expected), rel=1e-4)
    assert all(gradient_of(parameter).isfinite().all() for parameter in loaded.model.parameters())


def test_target_weights_scale_the_gradient_of_a_decision(work: Path, adapted: Path) -> None:
    from policy.training.loss import Weights, backward

    loaded = base.load(work / "base", weights=adapted / adapt.STATE)
    builder = ExampleBuilder(work / "corpus", loaded, "repoformer-spm", BUDGETS)
    data = blanks.eligible(blanks.load(work / "blanks" / "train.jsonl"), 4, 0)
    cc = loaded.vocabulary.ids["cc"]

    def gradient(positive: bool, weights: dict[int, float]) -> torch.Tensor:
        batch = [builder.build_labeled(blank, positive=positive)[0] for blank in data]
        loaded.model.zero_grad(set_to_none=True)
        backward(loaded.model, batch, Weights(decision=1.0, target_weights=weights), Compute())
        return gradient_of(loaded.model.get_parameter("model.layers.0.mlp.up_proj.weight")).clone()

    assert torch.allclose(gradient(True, {cc: 3.0}), 3 * gradient(True, {}), rtol=1e-3, atol=1e-7)
    assert torch.equal(gradient(False, {cc: 3.0}), gradient(False, {}))


def test_a_probe_has_the_hidden_state_of_its_prompt(work: Path, adapted: Path) -> None:
    from policy.training.loss import hidden_states, hidden_with_probes

    probes.run(work / "probes", work / "corpus", work / "blanks", each=4)
    known = probes.read(work / "probes" / "train.jsonl")
    assert {helpful for found in known.values() for _, helpful in found} == {True, False}
    loaded = base.load(work / "base", weights=adapted / adapt.STATE)
    builder = ExampleBuilder(work / "corpus", loaded, "repoformer-spm", BUDGETS)
    data = blanks.eligible(blanks.load(work / "blanks" / "train.jsonl"), 0, 0)
    group = [plain for plain, _ in finetune.pairs_of(builder, data, known, 0, 8, 0)]
    hidden, probed = hidden_with_probes(loaded.model, group, "cpu")
    assert len(probed) == sum(len(example.probes) for example in group) > 3
    eof, ids = loaded.vocabulary.ids["eof"], loaded.vocabulary.ids
    for row, example in enumerate(group):
        plainly = hidden_states(loaded.model, [example.tokens], "cpu")[0]
        assert torch.allclose(hidden[row, : len(example.tokens)], plainly, atol=1e-5)
    for (row, column, target), (seen, wanted) in zip(probed, [p for e in group for p in e.probes], strict=True):
        alone = hidden_states(loaded.model, [[*group[row].tokens[:seen], eof]], "cpu")[0, -1]
        assert torch.allclose(hidden[row, column], alone, atol=1e-5)
        assert target == wanted
        assert target in (ids["cc"], ids["middle"])


def test_a_relative_path_gives_the_same_result(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    blanks.run(tmp_path / "blanks", Path("corpus"), per_repository=60)
    for corpus in (work / "corpus", Path("corpus")):
        probes.run(tmp_path / f"probes-{corpus.is_absolute()}", corpus, work / "blanks", each=4)

    def texts(folder: Path) -> list[str]:
        return [(folder / f"{split}.jsonl").read_text("utf-8") for split in ("train", "valid", "test")]

    assert texts(tmp_path / "blanks") == texts(work / "blanks")
    absolute, relative = (probes.read(tmp_path / f"probes-{kind}" / "train.jsonl") for kind in (True, False))
    assert absolute == relative


def test_a_folder_with_another_run_is_refused(work: Path, adapted: Path) -> None:
    with pytest.raises(manifest.TrainingError, match="another run"):
        adapt.run(adapted, work / "corpus", work / "blanks", work / "base", budgets=BUDGETS, left_weight=0.9)


@pytest.fixture(scope="module")
def finetuned(work: Path, adapted: Path) -> Path:
    label.run(work / "label", work / "corpus", work / "blanks", work / "base", adapted, max_tokens=40)
    return _finetune(work, adapted, "finetune")


def _finetune(work: Path, adapted: Path, out: str, labels: str = "label") -> Path:
    finetune.run(
        work / out, work / "corpus", work / "blanks", work / labels, work / "base", adapted,
        label_kind="likelihood", epochs=3.0, batch=8, lr=1e-3, validate_every=2, compute=Compute(micro_tokens=512),
    )  # fmt: skip
    return work / out


def test_labeling_is_repeatable(work: Path, finetuned: Path) -> None:
    made = label.load_labels(work / "label" / "valid.jsonl")
    half = work / "label-half"
    manifest.write(half_folder(half), manifest.read(work / "label") | {"done": False})
    text = (work / "label" / "valid.jsonl").read_text("utf-8")
    (half / "valid.jsonl").write_text(text[: len(text) // 2], "utf-8")  # the last row is incomplete
    label.run(half, work / "corpus", work / "blanks", work / "base", work / "adapt", max_tokens=40)
    again = label.load_labels(half / "valid.jsonl")
    assert [row.id for row in again] == [row.id for row in made]
    assert [row.es_with for row in again] == pytest.approx([row.es_with for row in made], nan_ok=True)


def half_folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_label_has_the_similarity_of_the_best_chunk(work: Path, finetuned: Path) -> None:
    best = {blank.id: max((hit.score for hit in blank.hits), default=0.0)
            for blank in blanks.load(work / "blanks" / "valid.jsonl")}  # fmt: skip
    made = label.load_labels(work / "label" / "valid.jsonl")
    assert made
    assert [row.score for row in made] == [best[row.id] for row in made]


def test_labels_of_two_models_are_not_mixed(work: Path, adapted: Path, tmp_path: Path) -> None:
    moving = shutil.copytree(adapted, tmp_path / "adapt")

    def run_label() -> None:
        label.run(tmp_path / "label", work / "corpus", work / "blanks", work / "base", moving, valid_limit=2,
                  max_tokens=40, splits=("valid",))  # fmt: skip

    run_label()
    run_label()
    run_adapt(work, str(moving), 25)
    with pytest.raises(manifest.TrainingError, match="another run"):
        run_label()


def test_finetuning_does_not_resume_with_another_model_or_other_labels(
    work: Path, adapted: Path, finetuned: Path
) -> None:
    shutil.copytree(finetuned, work / "finetune-again")
    shutil.copytree(work / "label", work / "label-again")
    _finetune(work, adapted, "finetune-again", "label-again")
    moved = run_adapt(work, str(shutil.copytree(adapted, work / "adapt-again")), 25)
    with pytest.raises(manifest.TrainingError, match="another run"):
        _finetune(work, moved, "finetune-again", "label-again")
    for split in label.SPLITS:
        file = work / "label-again" / f"{split}.jsonl"
        before = file.read_text("utf-8")
        file.write_text(before[: before.rfind("\n", 0, -1) + 1], "utf-8")  # the last row is missing
        with pytest.raises(manifest.TrainingError, match="another run"):
            _finetune(work, adapted, "finetune-again", "label-again")
        file.write_text(before, "utf-8")


@pytest.mark.parametrize("last", [1, 3])
def test_a_run_without_a_checkpoint_starts_again(
    work: Path, adapted: Path, finetuned: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    def kill(out: Path, row: dict[str, float]) -> None:
        adapt.append_metrics(out, row)
        if row["step"] == last:
            raise KeyboardInterrupt

    out = work / f"killed-{last}"
    shutil.copytree(finetuned, out)
    (out / adapt.STATE).unlink()  # only the metrics and the best weights of the earlier run are left
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(finetune, "append_metrics", kill)
        _finetune(work, adapted, out.name)
    assert [row["step"] for row in adapt.history(out)] == list(range(1, last + 1))
    assert (out / finetune.BEST).is_file() == (last > 2), "the best weights are not saved at step 2"
    _finetune(work, adapted, out.name)
    assert adapt.history(out) == adapt.history(finetuned)


def test_finetuning_lowers_the_loss_of_the_decision(work: Path, finetuned: Path) -> None:
    finished = manifest.read(finetuned)
    rows = adapt.history(finetuned)
    assert np.mean([row["decision"] for row in rows[-3:]]) < rows[0]["decision"]
    assert [each["name"] for each in finished["gates"]] == ["token"]


def _finetune_lora(work: Path, adapted: Path, out: str) -> dict[str, Any]:
    finetune.run(
        work / out, work / "corpus", work / "blanks", work / "label", work / "base", adapted, label_kind="likelihood",
        epochs=10.0, batch=8, lr=1e-2, validate_every=4, lora_rank=4, compute=Compute(micro_tokens=512),
    )  # fmt: skip
    return dict(torch.load(work / out / adapt.STATE, weights_only=True))


def test_lora_trains_low_rank_differences_and_resumes(
    work: Path, adapted: Path, finetuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _finetune_lora(work, adapted, "lora")
    rows = adapt.history(work / "lora")
    assert np.mean([row["decision"] for row in rows[-3:]]) < rows[0]["decision"]

    def interrupt(out: Path, row: dict[str, float]) -> None:
        adapt.append_metrics(out, row)
        if row["step"] == 5:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(finetune, "append_metrics", interrupt)
        assert _finetune_lora(work, adapted, "lora-stopped")["step"] == 5
    parts = _finetune_lora(work, adapted, "lora-stopped")
    for kind in ("model", "lora"):
        assert all(torch.equal(whole[kind][name], parts[kind][name]) for name in whole[kind])

    before = torch.load(adapted / adapt.STATE, weights_only=True)["model"]
    moved = {name for name in before if not torch.equal(before[name], whole["model"][name])}
    assert moved == {name for name in before if name.endswith("proj.weight")}, "not only linear layers change"
    for name in moved:
        difference = whole["model"][name] - before[name]
        assert torch.linalg.matrix_rank(difference, rtol=1e-4) <= 4


def test_merged_weights_give_the_same_hidden_states(work: Path, adapted: Path) -> None:
    from policy.training.loss import hidden_states

    tuned, merged = (base.load(work / "base", weights=adapted / adapt.STATE).model for _ in range(2))
    lora.attach(tuned, rank=3, seed=0)
    for name, parameter in tuned.named_parameters():
        if name.endswith(".up"):
            parameter.data += 0.05 * torch.randn_like(parameter)
    state = lora.state_of(tuned)
    merged.load_state_dict(state["model"])
    one, other = (hidden_states(model, [[5, 9, 40, 77]], "cpu") for model in (tuned, merged))
    assert torch.allclose(one, other, atol=1e-5)


def test_llama_cpp_agrees_with_torch(work: Path, finetuned: Path) -> None:
    paths = export.run(work / "export", finetuned, work / "base", types=("F16", "Q8_0"), name="tiny")
    assert [path.name for path in paths] == ["tiny-F16.gguf", "tiny-Q8_0.gguf"]
    loaded = base.load(work / "base", weights=finetuned / finetune.BEST)
    builder = ExampleBuilder(work / "corpus", loaded, "repoformer-spm", BUDGETS)
    data = finetune.labeled_blanks(work / "blanks" / "valid.jsonl", work / "label" / "valid.jsonl", 12, 0)
    expected = finetune.p_retrieve(loaded.model, builder, data, Compute(micro_tokens=512))
    llama = Llama(paths[0], EngineSettings(context_size=512, threads=1))
    try:
        vocabulary = llama.vocabulary()
        assert llama.metadata["repoformer.layout"] == "repoformer-spm"
        assert llama.metadata["repoformer.budget.left"] == "64"
        assert [gate.name for gate in gates_of(llama.metadata)] == ["token"]
        assert "repoformer.gate.token.threshold.line" in llama.metadata
        assert llama.ends_text(loaded.end)
        prompts = PromptBuilder(LAYOUTS["repoformer-spm"], vocabulary, llama, BUDGETS)
        for entry, wanted in zip(data, expected, strict=True):
            tokens = prompts.decide(builder.cursor(entry.blank)).tokens
            assert tokens == builder.prompts.decide(builder.cursor(entry.blank)).tokens
            assert _p_cc(llama, tokens, vocabulary.ids["cc"]) == pytest.approx(wanted, abs=1e-3)
    finally:
        llama.close()


def test_a_split_model_gives_the_same_logits(work: Path, finetuned: Path) -> None:
    def logits(path: Path) -> NDArray[np.float32]:
        llama = Llama(path, EngineSettings(context_size=64, threads=1))
        try:
            assert llama.decode([Row(5, 0, 0, True)]) == "ok"
            return np.array(llama.logits(), dtype=np.float32)
        finally:
            llama.close()

    whole = export.run(work / "whole", finetuned, work / "base", types=("Q8_0",), name="tiny")[-1]
    parts = export.run(work / "parts", finetuned, work / "base", types=("Q8_0",), name="tiny", part_bytes=50_000)[1:]
    assert len(parts) > 1
    files = manifest.read(work / "parts")["files"]
    assert {path.name for path in parts} <= set(files)
    assert all(files[path.name]["sha256"] == sha256([path]) for path in parts)
    assert locate.name_of(parts[0]) == whole.stem
    assert np.array_equal(logits(parts[0]), logits(whole))


def test_an_export_removes_the_parts_of_an_earlier_one(work: Path, finetuned: Path) -> None:
    out = work / "again"

    def exported(part_bytes: int) -> set[str]:
        paths = export.run(out, finetuned, work / "base", types=("Q8_0",), name="tiny", part_bytes=part_bytes)
        names = {path.name for path in paths}
        assert {path.name for path in out.glob("*.gguf")} == names
        assert set(manifest.read(out)["files"]) == names
        return names

    assert len(exported(30_000)) > len(exported(60_000)) > 2
    assert exported(0) == {"tiny-F16.gguf", "tiny-Q8_0.gguf"}
    assert len(exported(60_000)) > 2
    assert exported(10_000_000) == {"tiny-F16.gguf", "tiny-Q8_0.gguf"}


def test_an_exported_model_is_trained_further_with_its_rounding(work: Path, finetuned: Path) -> None:
    import gguf

    first = export.run(work / "first", finetuned, work / "base", types=("Q8_0",), part_bytes=50_000)[1]
    label.run(work / "own", work / "corpus", work / "blanks", first, None, limit=3, max_tokens=40, splits=("train",))
    assert len(label.load_labels(work / "own" / "train.jsonl")) == 3
    out = work / "rounded"
    finetune.run(
        out, work / "corpus", work / "blanks", work / "none", first, None, label_kind="own", epochs=8.0, batch=8,
        lr=3e-3, freeze_embedding=True, rounding="Q4_0", compute=Compute(micro_tokens=512),
    )  # fmt: skip
    before = dict(base.load(first).model.state_dict())
    after = torch.load(out / adapt.STATE, weights_only=True)["model"]
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {"model.embed_tokens.weight", "lm_head.weight"}

    builder = ExampleBuilder(work / "corpus", base.load(first), "repoformer-spm", BUDGETS)
    learned = blanks.eligible(blanks.load(work / "blanks" / "train.jsonl"), 0, 0)
    examples = [example for blank in learned if (example := builder.build(blank, context=True))]

    def loss(state: dict[str, torch.Tensor]) -> float:
        builder.base.model.load_state_dict(state)
        with rounding.rounded(builder.base.model, "Q4_0"):
            return sum(nll(builder.base.model, examples, Compute()))

    assert loss(after) < loss(before)

    exported = export.run(work / "four", out, first, types=("Q4_0",))[-1]
    served = {str(tensor.name): tensor for tensor in gguf.GGUFReader(exported).tensors}
    tensor = served["blk.1.ffn_down.weight"]
    trained = after["model.layers.1.mlp.down_proj.weight"].half().float()
    assert torch.equal(
        torch.tensor(gguf.dequantize(tensor.data, tensor.tensor_type)),
        rounding.q4_0(trained),
    )


def test_a_long_text_needs_a_greater_gain_than_a_short_one() -> None:
    assert finetune.likelier(10.0, 7.0, 2.0, 0.1)
    assert not finetune.likelier(10.0, 8.5, 2.0, 0.1)
    assert not finetune.likelier(90.0, 87.0, 2.0, 0.1)


def _p_cc(llama: Llama, tokens: tuple[int, ...], cc: int) -> float:
    llama.truncate(0, 0)
    rows = [Row(token, pos, 0, pos == len(tokens) - 1) for pos, token in enumerate(tokens)]
    assert llama.decode(rows) == "ok"
    logits = llama.logits(len(tokens) - 1).astype(np.float64)
    return float(np.exp(logits[cc] - np.logaddexp.reduce(logits)))


def test_blanks_have_all_kinds_and_no_hits_in_their_own_file(work: Path) -> None:
    rows = [json.loads(line) for line in (work / "blanks" / "test.jsonl").read_text("utf-8").splitlines()]
    assert {row["kind"] for row in rows} == {"line", "cursor", "chunk", "function"}
    assert not any(row["oracle"] for row in rows)
    for row in rows:
        assert all(hit["path"] != row["path"] for hit in row["hits"])
