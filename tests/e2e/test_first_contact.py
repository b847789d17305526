"""The server offers a better model if it uses the included one on a machine that is fast enough for a larger one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from lsp_server.client import Client
from lsp_server.core import _engine_settings
from lsp_server.settings import Settings
from policy.engine.speed import Speed, Speeds
from policy.models.card import Card
from policy.models.locate import installed
from tests.e2e.driving import all_gone, family_of, logged
from tests.standin_index import Index, index, make_card, publish

ASKED = "window/showMessageRequest"
CAN_ASK = {"window": {"workDoneProgress": True, "showMessage": {"messageActionItem": {}}}}
# This program runs the server so that it knows only the card of the test, and finds every model fast enough.
PROGRAM = """
import sys
from pathlib import Path
from policy.engine import speed
from policy.models import card
card.FOLDER = Path(sys.argv[1])
speed.LIMIT_SECONDS = speed.OFFERED_SECONDS = 1e6
from lsp_server.cli import main
sys.exit(main(sys.argv[2:]))
"""
Open = Callable[..., Coroutine[Any, Any, Client]]


@pytest.fixture
def served() -> Iterator[Index]:
    with index() as state:
        yield state


@pytest.fixture
def card(tmp_path: Path, model: Path, served: Index) -> Card:
    """The card of a model that the stand-in serves. The model is a real one, a little larger than the included one."""
    content = model.read_bytes()
    card = make_card(tmp_path / "cards", content)
    publish(served, card, content, hub=True, wheels=False)
    return card


@pytest.fixture
async def start(home: dict[str, str], tmp_path: Path, served: Index, card: Card) -> AsyncIterator[Open]:
    """Return a function that starts a server, with a client that answers its questions to the user by `answer`.

    Without `asks`, the client cannot show questions.
    """
    ours = next(found for found in installed() if found.source == "shipped")
    speeds = Speeds(Path(home["XDG_CACHE_HOME"], "repoformer-lsp", "speed.json"))
    # The speed is stored in advance, so that the server does not measure a machine that may be busy.
    speeds.remember(ours.path, Speed(1.0, 5.0), _engine_settings(Settings()))
    clients: list[Client] = []
    (tmp_path / "workspace").mkdir()

    async def start(answer: str | None = None, *, asks: bool = True, name: str = "") -> Client:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "cards"), "serve"]
        client = await Client.spawn(command, env={**home, **served.environment})
        clients.append(client)
        client.answers[ASKED] = {"title": answer} if answer else None
        client.name = name or client.name
        await client.initialize([tmp_path / "workspace"], capabilities=CAN_ASK if asks else None)
        return client

    yield start
    for client in clients:
        assert client.process is not None
        family = family_of(client.process.pid)
        if client.process.returncode is None:
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(client.close(), 30) == 0
        await all_gone(family)


async def shown(client: Client, text: str) -> str:
    """Wait for a message to the user that contains `text`, and return it."""
    message: str = (await client.seen("window/showMessage", lambda params: text in params["message"]))["message"]
    return message


def pulled(home: dict[str, str], card: Card) -> Path:
    return Path(home["XDG_CACHE_HOME"], "repoformer-lsp", "models", card.file)


def stored(home: dict[str, str]) -> dict[str, Any]:
    """Return the stored answers of the user to offers."""
    content: dict[str, Any] = json.loads(
        Path(home["XDG_STATE_HOME"], "repoformer-lsp", "offers.json").read_text("utf-8")
    )
    return content


async def test_a_yes_fetches_the_model_and_uses_it(start: Open, home: dict[str, str], card: Card) -> None:
    get = f"Download {card.title} ({card.megabytes})"
    client = await start(get)
    asked = await client.seen(ASKED)
    assert [action["title"] for action in asked["actions"]] == [get, "Not now", "Don't ask again"]
    begun = await client.seen("$/progress", lambda params: "Downloading" in str(params["value"].get("title")))
    await client.seen("$/progress", lambda params: params == {"token": begun["token"], "value": {"kind": "end"}})
    await shown(client, "Tiny Coder is now in use")
    assert pulled(home, card).stat().st_size == card.size
    await client.seen("repoformer/status", lambda status: status["state"] == "ready" and status["model"] == card.name)
    await client.close()
    again = await start()
    await again.seen("repoformer/status", lambda status: status["state"] == "ready" and status["model"] == card.name)
    assert not [message for message in again.received if message["method"] == ASKED]


@pytest.mark.parametrize("answer", ["Don't ask again", "Not now", None])
async def test_a_no_is_remembered(start: Open, home: dict[str, str], card: Card, answer: str | None) -> None:
    client = await start(answer)
    await client.seen(ASKED)
    await client.close()
    assert stored(home)["never"] is (answer == "Don't ask again")
    again = await start("Download")
    await logged(again, "Tiny Coder is better than the model in use, but was already offered")
    assert not [message for message in again.received if message["method"] == ASKED]
    assert not pulled(home, card).exists()


async def test_a_client_that_cannot_ask_gets_the_command(start: Open, card: Card) -> None:
    client = await start(asks=False)
    assert f"repoformer-lsp model pull {card.name}" in await shown(client, "Tiny Coder gives better completions")
    assert not [message for message in client.received if message["method"] == ASKED]


async def test_neovim_whose_question_takes_the_keyboard_has_a_command(
    start: Open, home: dict[str, str], card: Card
) -> None:
    client = await start(name="Neovim")
    assert ":Repoformer model" in await shown(client, "Tiny Coder gives better completions")
    await client.request("workspace/executeCommand", {"command": "repoformer.getModel", "arguments": []})
    await shown(client, "Tiny Coder is now in use")
    assert pulled(home, card).stat().st_size == card.size
    await client.request("workspace/executeCommand", {"command": "repoformer.getModel", "arguments": []})
    await shown(client, "There is no better model to download")
    assert not [message for message in client.received if message["method"] == ASKED]


async def test_a_download_that_fails_is_explained(start: Open, home: dict[str, str], card: Card, served: Index) -> None:
    served.page_for_all = True
    client = await start(f"Download {card.title} ({card.megabytes})")
    message = await shown(client, "Cannot download")
    assert "may be that of a proxy or a sign-in page" in message
    assert f"repoformer-lsp model pull {card.name}` again" in message
    assert not pulled(home, card).exists()
    await client.close()
