"""Training continues or stops correctly after external events, such as a kill, a full disk, or a full GPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from policy.training import adapt, base, blanks
from policy.training.compute import Compute
from policy.training.examples import ExampleBuilder
from policy.training.loss import Weights, backward
from tests.training.tiny import BUDGETS, run_adapt

ROOT = Path(__file__).parents[2]
TRAIN = "import sys; from pathlib import Path; from tests.training.tiny import run_adapt; import torch; "
TRAIN += "torch.set_num_threads(1); run_adapt(Path(sys.argv[1]), sys.argv[2], 24, save_minutes=0.0)"


def start(work: Path, out: str, before: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", before + TRAIN, str(work), out]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def steps_of(out: Path) -> int:
    return int(adapt.history(out)[-1]["step"]) if adapt.history(out) else 0


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(out / adapt.STATE, weights_only=True)["model"]
    return state


def test_a_killed_run_ends_with_the_same_weights(work: Path, adapted: Path) -> None:
    with start(work, "killed") as process:
        while steps_of(work / "killed") < 7 and process.poll() is None:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    with (work / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "mid')  # a kill can leave an incomplete line
    run_adapt(work, "killed", 24)
    whole, parts = weights_of(adapted), weights_of(work / "killed")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert [row["step"] for row in adapt.history(work / "killed")] == list(range(25))


def test_steps_before_the_first_checkpoint_are_recorded_once(
    work: Path, adapted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(out: Path, row: dict[str, float]) -> None:
        append_metrics(out, row)
        if row["step"] == 7:
            raise KeyboardInterrupt

    append_metrics = adapt.append_metrics
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(adapt, "append_metrics", kill)
        run_adapt(work, "early", 24)
    run_adapt(work, "early", 24)
    assert [row["step"] for row in adapt.history(work / "early")] == list(range(25))


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits of a process")
def test_a_full_disk_is_reported_and_keeps_saved_files(work: Path) -> None:
    run_adapt(work, "full", 3)
    kept = weights_of(work / "full")
    # The process cannot write files of more than 50,000 bytes. So it cannot save a checkpoint, as on a full disk.
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)); "
    with start(work, "full", limit) as process:
        _, output = process.communicate()
    assert process.returncode != 0
    assert "TrainingError: could not save" in output
    assert sorted(path.name for path in (work / "full").iterdir()) == ["manifest.json", "metrics.jsonl", "state.pt"]
    left = weights_of(work / "full")
    assert all(torch.equal(kept[name], left[name]) for name in kept)
    assert json.loads((work / "full" / "manifest.json").read_text())["step"] == "adapt"


def test_out_of_memory_splits_the_batch_and_keeps_the_gradient(work: Path) -> None:
    loaded = base.load(work / "base")
    builder = ExampleBuilder(work / "corpus", loaded, "repoformer-spm", BUDGETS)
    data = blanks.load(work / "blanks" / "train.jsonl")[:6]
    batch = [example for blank in data if (example := builder.build(blank, context=True))]
    seen: list[int] = []

    def refuse(_module: torch.nn.Module, _arguments: object, given: dict[str, torch.Tensor]) -> None:
        seen.append(given["input_ids"].numel())
        if seen[-1] > 600:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def gradients() -> list[torch.Tensor]:
        loaded.model.zero_grad(set_to_none=True)
        backward(loaded.model, batch, Weights(left=0.5), Compute(micro_tokens=4096))
        return [parameter.grad.clone() for parameter in loaded.model.parameters() if parameter.grad is not None]

    whole = gradients()
    inner = loaded.model.base_model
    assert isinstance(inner, torch.nn.Module)
    hook = inner.register_forward_pre_hook(refuse, with_kwargs=True)
    pieces = gradients()
    hook.remove()
    assert max(seen) > 600 >= seen[-1]
    assert len(whole) == len(pieces) > 0
    assert all(torch.allclose(one, other, rtol=1e-3, atol=1e-6) for one, other in zip(whole, pieces, strict=True))


def test_the_command_line_works_without_the_extra(tmp_path: Path) -> None:
    absent = ("torch", "transformers", "tokenizers", "gguf", "safetensors", "tqdm", "matplotlib", "huggingface_hub")
    run = f"import sys; sys.modules.update(dict.fromkeys({absent!r})); from lsp_server.cli import main; "
    run += "sys.exit(main(sys.argv[1:]))"

    def run_command(*words: str) -> tuple[int, str]:
        done = subprocess.run([sys.executable, "-c", run, *words], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    code, output = run_command("train", "--help")
    assert code == 0 and "finetune" in output
    code, output = run_command("model", "pull")
    assert code == 0, output
    code, output = run_command("train", "adapt", "--work", str(tmp_path), "--base", "base.gguf")
    assert code == 1
    assert "is not installed. In a clone of the repository, run `uv tool install --reinstall '.[train]'`." in output
