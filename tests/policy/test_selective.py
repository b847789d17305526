"""Completions of a model with `<cc>`: the decision, and the number of tokens that the model evaluates for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from indexer.model import Cursor
from indexer.snapshot import Snapshot
from policy.completion.request import Completion, CompletionSettings, Request, Trigger
from policy.completion.service import Completer
from policy.engine.settings import EngineSettings
from policy.engine.supervisor import Supervisor
from tests.marked import mark

pytestmark = pytest.mark.asyncio(loop_scope="module")

GEOMETRY = "def area_of_rectangle(width, height):\n    return width * height\n"
LINES = "".join(f"first_{number} = load('{number}.txt')\n" for number in range(6))
PREFIX = f"from geometry import area_of_rectangle\n\n{LINES}\ndef total(rooms):\n    "
SUFFIX = "\n\n\nprint(total([(1, 2), (3, 4)]))\n"
STATEMENT = "return sum(area_of_rectangle(w, h)"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def supervisor(marked_model: Path) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(marked_model, EngineSettings(context_size=2048, threads=2))
    yield supervisor
    await supervisor.close()


async def complete(supervisor: Supervisor, typed: str = "", threshold: float = 1.0) -> Completion:
    """Request a completion after `typed`. With the threshold 1 the model abstains, with 0 it retrieves."""
    snapshot = Snapshot.of([("geometry.py", GEOMETRY)], root="/w")
    completer = Completer(
        supervisor, lambda: snapshot, CompletionSettings(threshold=threshold, line_tokens=8, patience=60, ahead=False)
    )
    cursor = Cursor("/w/main.py", PREFIX + typed, SUFFIX, "python")
    return await completer.complete(Request(cursor, "file:///w/main.py"))


async def test_the_token_decides(supervisor: Supervisor) -> None:
    abstained, retrieved = await complete(supervisor), await complete(supervisor, threshold=0.0)
    assert abstained.decision is not None and retrieved.decision is not None
    assert abstained.decision.source == retrieved.decision.source == "token"
    assert 0 < abstained.decision.p_retrieve < 1
    assert abstained.decision.p_retrieve == pytest.approx(retrieved.decision.p_retrieve, rel=0.05)
    assert (abstained.decision.retrieve, retrieved.decision.retrieve) == (False, True)
    assert [hit.chunk.path for hit in retrieved.hits] == ["geometry.py"]


async def test_an_abstained_request_evaluates_l_r_and_the_markers_once(supervisor: Supervisor) -> None:
    await (await supervisor.engine()).forget("")
    completion = await complete(supervisor)
    # With R and L for the texts after and before the cursor, the model evaluates `<fim_suffix> R <fim_prefix> L <eof>`
    # to decide, and then `<fim_middle>` to generate.
    assert completion.stats["evaluated_tokens"] == completion.stats["prompt_tokens"]


async def test_retrieving_reads_r_once(supervisor: Supervisor) -> None:
    await (await supervisor.engine()).forget("")
    completion = await complete(supervisor, threshold=0.0)
    stats = completion.stats
    decision_prompt = stats["prompt_tokens"] - stats["context_tokens"] - 1  # the 1 is the token <cc>
    right = len(SUFFIX) // 4  # the suffix has at least this number of tokens, because few have over four characters
    assert stats["evaluated_tokens"] < stats["prompt_tokens"] + decision_prompt - right // 2


@pytest.mark.parametrize("threshold", [0.0, 1.0], ids=["retrieving", "abstaining"])
async def test_a_keystroke_evaluates_fewer_than_16_tokens_per_branch(supervisor: Supervisor, threshold: float) -> None:
    await complete(supervisor, threshold=threshold)
    branches = 1 if threshold else 2
    for end in range(1, len(STATEMENT) + 1, 3):
        completion = await complete(supervisor, STATEMENT[:end], threshold)
        assert completion.stats["evaluated_tokens"] < 16 * branches


async def test_typing_through_does_not_ask_the_engine(supervisor: Supervisor) -> None:
    snapshot = Snapshot.of([("geometry.py", GEOMETRY)], root="/w")
    completer = Completer(supervisor, lambda: snapshot, CompletionSettings(threshold=1.0, patience=60))

    def request(typed: str) -> Request:
        return Request(Cursor("/w/main.py", PREFIX + STATEMENT + typed, SUFFIX, "python"), "file:///w/main.py")

    first = await completer.complete(request(""))
    assert len(first.text) > 1
    for end in range(1, len(first.text)):
        again = await completer.complete(request(first.text[:end]))
        assert again.text == first.text[end:]
        assert again.stats == {"reused": 1}
        assert again.decision == first.decision


@pytest.mark.parametrize("threshold", [0.0, 1.0], ids=["retrieving", "abstaining"])
async def test_a_decision_is_reused_on_its_line_unless_invoked(supervisor: Supervisor, threshold: float) -> None:
    snapshot = Snapshot.of([("geometry.py", GEOMETRY)], root="/w")
    completer = Completer(
        supervisor, lambda: snapshot, CompletionSettings(threshold=threshold, line_tokens=8, patience=60, ahead=False)
    )

    async def asked(typed: str, trigger: Trigger = "automatic") -> Completion:
        cursor = Cursor("/w/main.py", PREFIX + typed, SUFFIX, "python")
        return await completer.complete(Request(cursor, "file:///w/main.py", trigger))

    first, second = await asked("ret"), await asked("return 7")
    assert first.decision is not None and second.decision is not None
    assert (first.decision.held, second.decision.held) == (False, True)
    assert second.decision.p_retrieve == first.decision.p_retrieve
    assert [hit.chunk for hit in second.hits] == [hit.chunk for hit in first.hits]
    assert second.stats["evaluated_tokens"] < 16, "more than one branch is evaluated"
    again, below = await asked("return 7", "invoked"), await asked("return 7\n    ")
    assert again.decision is not None and below.decision is not None
    assert not again.decision.held and not below.decision.held
    call = (await asked("return 7\n    sum("), await asked("return 7\n    sum(r"))
    assert call[0].decision is not None and call[1].decision is not None
    assert call[0].decision.held is (threshold == 0.0), "when an argument begins, only an abstention is reconsidered"
    assert call[1].decision.held


EVIDENCE = {"score": 10.0, "offset": 2.5, "threshold.line": 0.5, "threshold.block": 0.5}


@pytest.mark.parametrize(
    ("borders", "source"), [({}, "evidence"), ({"sure.below": 0.0, "sure.above": 1.0}, "token")], ids=["sure", "unsure"]
)
async def test_a_gate_on_evidence_decides_before_the_model_reads(
    borders: dict[str, float], source: str, model: Path, tmp_path: Path
) -> None:
    marked = tmp_path / "model.gguf"
    gate = {f"repoformer.gate.evidence.{key}": str(value) for key, value in {**EVIDENCE, **borders}.items()}
    mark(model, marked, "repoformer-spm", gate)
    supervisor = Supervisor(marked, EngineSettings(context_size=2048, threads=2))
    snapshot = Snapshot.of([("geometry.py", GEOMETRY)], root="/w")
    completer = Completer(supervisor, lambda: snapshot, CompletionSettings(line_tokens=4, patience=60, ahead=False))
    completion = await completer.complete(Request(Cursor("/w/main.py", PREFIX, SUFFIX, "python"), "file:///w/main.py"))
    assert completion.decision is not None and completion.decision.source == source
    if source == "evidence":
        assert completion.decision.retrieve
        # The gate decides from the hits alone, so the model evaluates only the prompt with the chunk.
        assert completion.stats["evaluated_tokens"] == completion.stats["prompt_tokens"]
    await supervisor.close()
