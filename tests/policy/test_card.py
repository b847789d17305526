"""A card can add metadata to a model file. The worker uses them like the metadata in the file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from policy.engine.worker.metadata import choose_layout, named_tokens
from policy.errors import ModelInvalid
from policy.gating import keep
from policy.gating.gate import selectable_gates
from policy.models import locate
from policy.models.card import SHIPPED, Card, all_cards, metadata_of
from policy.models.gguf import check_generator
from policy.prompting.prompt import ROLES, Budgets, Vocabulary
from tests.standin_index import make_card

PROGRAM = """
import json, sys
from pathlib import Path
from policy.models import card
card.FOLDER = Path(sys.argv[1])
from policy.engine.settings import EngineSettings
from policy.engine.worker.llama import Llama
from policy.engine.worker.completion_model import CompletionModel
llama = Llama(Path(sys.argv[2]), EngineSettings(context_size=2048, gpu_layers=0))
info = CompletionModel(llama, "", {}).info()
print(json.dumps([info.layout, info.budgets.left, info.selective, llama.vocabulary().ids["cc"],
                  info.metadata["repoformer.gate.token.offset"], info.metadata["general.architecture"]]))
"""


def loaded(cards: Path, model: Path) -> str:
    """Load `model` with the cards of the folder `cards` in a new process. Return the JSON that `PROGRAM` prints."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(cards), str(model)], capture_output=True, text=True,
                          check=True)  # fmt: skip
    return done.stdout.strip()


def test_the_worker_adds_a_card_to_the_metadata(marked_model: Path, tmp_path: Path) -> None:
    make_card(
        tmp_path, marked_model.read_bytes(), **{
            "repoformer.layout": "repoformer-spm-tail", "repoformer.budget.left": "200", "repoformer.token.cc": "7",
            "repoformer.gate.token.offset": "0.5",
        },
    )  # fmt: skip
    assert loaded(tmp_path, marked_model) == '["repoformer-spm-tail", 200, true, 7, "0.5", "llama"]'


def test_a_token_of_another_vocabulary_is_refused() -> None:
    assert named_tokens({"repoformer.token.eof": "271"}, 272) == {"eof": 271}
    for wrong in ("272", "-1", "eof"):
        with pytest.raises(ModelInvalid, match=r"the model has 272 tokens. The metadata is that of another model"):
            named_tokens({"repoformer.token.eof": wrong}, 272)


@pytest.mark.parametrize("card", all_cards(), ids=lambda card: card.name)
def test_the_cards_of_the_package_have_readable_metadata(card: Card) -> None:
    vocabulary = Vocabulary({role: number for number, role in enumerate(ROLES)})
    assert choose_layout(card.metadata["repoformer.layout"], vocabulary).name == card.metadata["repoformer.layout"]
    budgets = Budgets.from_metadata(card.metadata)
    assert [str(budgets.left), str(budgets.right), str(budgets.context)] == [
        card.metadata[f"repoformer.budget.{name}"] for name in ("left", "right", "context")
    ]
    read = {key for gate in selectable_gates(card.metadata, decides=False) for key in gate.to_metadata()}
    gates = {key for key in card.metadata if key.startswith("repoformer.gate.")}
    assert gates <= read, "the gates do not use all of the card's metadata for gates"


def test_the_card_of_the_model_that_ships_is_read() -> None:
    (told,) = (json.loads(path.read_text("utf-8")) for path in SHIPPED.glob("*.json"))
    (model,) = locate.shipped()
    assert metadata_of(model.path) == told["metadata"], "the card is for other weights than the included ones"
    estimate = keep.keep_from_metadata(metadata_of(model.path))
    assert estimate is not None
    budgets = locate.budgets_of(model.path, check_generator(model.path))
    read = {**estimate.to_metadata(), "repoformer.budget.left": str(budgets.left)}
    assert read == told["metadata"]
    assert estimate.balanced < estimate.careful


def test_another_file_has_no_card(tmp_path: Path) -> None:
    assert metadata_of(tmp_path / "absent.gguf") == {}
    (model,) = locate.shipped()
    other = tmp_path / model.path.name
    other.write_bytes(b"x" * model.path.stat().st_size)
    assert metadata_of(other) == {}
