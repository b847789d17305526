"""The real server process with a generator other than the local model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.e2e.driving import Start, Workspace, logged, ready, shown
from tests.policy.standin import standing_in, status, stream

Write = Callable[[str], Workspace]
COUNTING = """
#- counting.py
ONE = 1
TWO = 2
THREE = ‸
"""


async def test_a_server_that_comes_and_goes(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(COUNTING)
    async with standing_in(stream("33")) as server:
        settings = {"generator": "openai", "serverUrl": server.url, "generatorModel": "coder"}
        client = await start(place.root, model=model, settings=settings, options={"serverKey": "from the secret store"})
        await ready(client)
        client.open(place.uri, place.text)
        [item] = await client.complete(place.uri, place.cursor)
        assert item["insertText"] == "THREE = 33"
        assert (await client.why(place.uri))["model"] == "coder"
        assert server.headers[0]["authorization"] == "bearer from the secret store"

        server.behave = status(500)
        for _ in range(3):
            [item] = await client.complete(place.uri, place.cursor)
            assert item["insertText"] != "THREE = 33"
        [told] = shown(client)
        assert told.endswith("failed (500). The local model is used instead.")
        await client.seen("repoformer/status", lambda status: (status["state"], status["message"]) == ("ready", told))

        server.behave = stream("33")
        items = await client.complete(place.uri, place.cursor)
        while items[0]["insertText"] != "THREE = 33":  # the local model answers until the server is tried again
            items = await client.complete(place.uri, place.cursor)
        await logged(client, "is available again")
        assert shown(client) == [told]
    lines = [sent["params"]["message"] for sent in client.received if sent["method"] == "window/logMessage"]
    assert not [line for line in lines if "secret store" in line]


async def test_llama_server_needs_the_markers_of_its_model(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(COUNTING)
    async with standing_in(stream("33", head="Server: llama.cpp")) as server:
        settings = {"generator": "openai", "serverUrl": server.url}  # `serverPrompt` is `suffix`
        client = await start(place.root, model=model, settings=settings)
        await ready(client)
        client.open(place.uri, place.text)
        [item] = await client.complete(place.uri, place.cursor)
        assert item["insertText"] != "THREE = 33"
        [told] = shown(client)
        assert "does not support `suffix`. Set `serverPrompt` to the format of its model" in told

        settings["serverPrompt"] = "qwen"
        client.notify("workspace/didChangeConfiguration", {"settings": None})
        items = await client.complete(place.uri, place.cursor)
        while items[0]["insertText"] != "THREE = 33":  # until the settings are applied
            items = await client.complete(place.uri, place.cursor)
        assert shown(client) == [told]


async def test_private_text_is_not_sent_to_a_server(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(COUNTING + "#- .gitignore\nbuild/\n#- .env\nPORT=80\n#- build/made.py\nONE = 1\nTWO = \n")
    secret = 'PASSWORD = "kX9#mQ2pLw7z"\n'
    async with standing_in(stream("33")) as server:
        settings = {"generator": "openai", "serverUrl": server.url, "generatorModel": "coder"}
        client = await start(place.root, model=model, settings=settings)
        await ready(client)
        notebook = (place.root / "build/made.ipynb").as_uri().replace("file://", "vscode-notebook-cell:") + "#W0s"
        for uri, text, reason in (
            ((place.root / ".env").as_uri(), "PORT=80\nHOST=", ".env"),
            ((place.root / "build/made.py").as_uri(), "ONE = 1\nTWO = ", "build/"),
            ((place.root / "settings.py").as_uri(), secret + "ONE = 1\nTWO = ", "password"),
            (notebook, "ONE = 1\nTWO = ", "build/"),
            ((place.root / ".env").as_uri().replace("file:", "git:") + "?HEAD", "PORT=80\nHOST=", ".env"),
        ):
            client.open(uri, text)
            await client.complete(uri, (text.count("\n"), len(text.rpartition("\n")[2])))
            why = await client.why(uri)
            assert reason in why["withheld"] and why["model"] == model.stem
        assert server.asked == []
        client.open(place.uri, place.text)
        [item] = await client.complete(place.uri, place.cursor)
        assert item["insertText"] == "THREE = 33"
        assert (await client.why(place.uri))["withheld"] == ""


async def test_a_key_that_is_set_later(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(COUNTING)
    async with standing_in(stream("33")) as server:
        client = await start(place.root, model=model, settings={"generator": "openai", "serverUrl": server.url})
        await ready(client)
        client.open(place.uri, place.text)
        assert await client.complete(place.uri, place.cursor)
        key = {"command": "repoformer.setServerKey", "arguments": ["new"]}
        assert await client.request("workspace/executeCommand", key) is None
        assert await client.complete(place.uri, place.cursor)
        assert [headers.get("authorization") for headers in server.headers] == [None, "bearer new"]


async def test_a_generator_that_is_not_there(start: Start, workspace: Write, model: Path) -> None:
    place = workspace(COUNTING)
    settings = {"generator": "gguf", "generatorModel": str(place.root / "none.gguf")}
    client = await start(place.root, model=model, settings=settings)
    await ready(client)
    client.open(place.uri, place.text)
    assert await client.complete(place.uri, place.cursor)
    [told] = shown(client)
    assert "There is no model at" in told and told.endswith("The local model is used instead.")
