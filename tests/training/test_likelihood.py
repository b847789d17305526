"""The likelihoods that torch measures are those of the engine, for the same prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from benchmarks.tiny_llama import write_tiny_llama
from policy.engine.messages import Stop, Trial
from policy.engine.settings import EngineSettings
from policy.engine.supervisor import Supervisor
from policy.evaluation import resample
from policy.evaluation.retrieval import Retrieval
from policy.gating.gate import Gate
from policy.training import gate, likelihood, manifest
from policy.training.compute import Compute
from policy.training.likelihood import Likelihood

BLANKS = 12


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    architecture: Literal["llama", "qwen2"] = request.param
    return write_tiny_llama(tmp_path_factory.mktemp("model") / f"{architecture}.gguf", architecture)


async def test_the_nats_are_those_of_the_engine(work: Path, model: Path, tmp_path: Path) -> None:
    likelihood.run(tmp_path, work / "corpus", "train", model, BLANKS, Compute(), batch=5)
    rows = {row.id: row for row in likelihood.load(tmp_path)}
    data = resample.load((work / "corpus" / "train").resolve(), BLANKS, likelihood.BLANK_KINDS, 0)
    short = [task for task in data.tasks if rows[task.id].tokens < likelihood.MAX_TRUTH]
    assert len(rows) == len(data.tasks) and len(short) > BLANKS / 2
    retrieval, trials = Retrieval(data.repositories), []
    for task in short:
        chunks = [hit.chunk for hit in retrieval.find(task)[0]]
        trials += [Trial(task.cursor, found, Stop(1), task.truth) for found in (None, chunks)]
    supervisor = Supervisor(model, EngineSettings(context_size=16_384, threads=1))
    tried = dict([each async for each in (await supervisor.engine()).try_all(trials)])
    await supervisor.close()
    for number, task in enumerate(short):
        without, with_ = (tried[2 * number + rich].truth for rich in (False, True))
        row = rows[task.id]
        assert without is not None and with_ is not None
        assert row.tokens == without.tokens
        assert row.nll_without == pytest.approx(without.nats, rel=1e-3)
        assert row.nll_with == pytest.approx(with_.nats, rel=1e-3)


def test_an_interrupted_run_resumes(work: Path, model: Path, tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    for folder in (whole, resumed):
        likelihood.run(folder, work / "corpus", "train", model, BLANKS, Compute())
    lines = (resumed / likelihood.FILE).read_text("utf-8").splitlines(keepends=True)
    (resumed / likelihood.FILE).write_text("".join(lines[:3]) + lines[3][:20], "utf-8")
    likelihood.run(resumed, work / "corpus", "train", model, BLANKS, Compute())
    first, second = ({row.id: row for row in likelihood.load(folder)} for folder in (whole, resumed))
    assert first.keys() == second.keys()
    assert all(second[id].nll_with == pytest.approx(row.nll_with, rel=1e-3) for id, row in first.items())
    assert manifest.read(resumed)["blanks"] == len(first)


def test_a_gate_finds_what_decides(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    scores, noise = random.random(400), random.normal(0, 0.1, 400)
    rows = [
        Likelihood(f"b{number}", f"r{number % 8}", "line", "python", "line", score, 0.1, 1, 0.5, 0.5, 1.0, 20.0,
                   18.0 if score + wrong > 0.6 else 20.5, 9)
        for number, (score, wrong) in enumerate(zip(scores.tolist(), noise.tolist(), strict=True))
    ]  # fmt: skip
    p, chosen = gate.held_out(rows, ("score",))
    metrics = gate.evaluate_nats(rows, p, chosen)
    assert metrics["auc"][0] > 0.95
    assert metrics["selected"] > max(0.0, metrics["always"])
    assert metrics["right_abstentions"] > 0.9 and metrics["harm"] == pytest.approx(0.5)
    fitted = gate.fit(rows, ("score",))
    assert fitted.name == "evidence"
    assert 0.5 < crossing(fitted) < 0.7


def crossing(fitted: Gate) -> float:
    """Return the score at which the probability reaches one half."""
    return -fitted.offset / fitted.weights["score"]
