"""A simulated server generates. When it fails, a real local model generates instead."""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import trustme

from indexer.model import Cursor, Hit, Retriever
from indexer.snapshot import Snapshot
from policy.completion.request import Completion, CompletionSettings, Request
from policy.completion.service import Completer
from policy.engine.settings import EngineSettings
from policy.engine.supervisor import Supervisor
from policy.errors import ServerUnavailable
from policy.generators import wire
from policy.generators.retry import RetrySchedule
from policy.generators.server import Server
from policy.generators.text import TextPrompts
from policy.prompting.prompt import Budgets
from tests.policy.standin import Asked, Behavior, answer, event, never, refusal, standing_in, status, stream

pytestmark = pytest.mark.asyncio(loop_scope="module")

BUDGETS = {"left": 256, "right": 64, "context": 128}
LIBRARY = "def area_of_rectangle(width, height):\n    return width * height\n"
BEFORE = "from geometry import area_of_rectangle\n\nwidth, height = 3, 4\nprint(area_of_rectangle("
CALL = Cursor("/w/main.py", BEFORE, "\n", "python")
WRITTEN = "width, height))"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def supervisor(model: Path) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(model, EngineSettings(context_size=1024, threads=2), budgets=BUDGETS)
    yield supervisor
    await supervisor.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait only half a second for an answer of the server."""
    monkeypatch.setattr(Editor, "patience", 0.5)


ENGINE_DIED = (  # vLLM 0.32.0
    b'data: {"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root cause.", '
    b'"type": "InternalServerError", "param": null, "code": 500}}\n\n'
)


class Editor:
    """A completer whose generator is the stand-in at `url`. `problems` has the messages to the user."""

    patience = 10.0  # the time limit for the server, in seconds

    def __init__(
        self, supervisor: Supervisor, url: str, *, family: str = "suffix", key: str = "", **more: bool
    ) -> None:
        self.problems: list[str] = []
        self.now = 0.0
        retry = RetrySchedule(lambda: self.now, lambda: 0.5)
        prompts = TextPrompts(family, Budgets(**BUDGETS))
        connection = wire.Wire(url, key, patience=self.patience)
        self.provider = Server(connection, "coder", prompts, self.report, retry=retry, **more)
        self.snapshot: Retriever = Snapshot.of([("geometry.py", LIBRARY)], root="/w")
        self.supervisor = supervisor
        self._numbers = 0

    def report(self, problem: str) -> None:
        if [problem] != self.problems[-1:]:
            self.problems.append(problem)

    async def complete(self, cursor: Cursor = CALL, private: str = "", **settings: Any) -> Completion:
        settings = {"policy": "never", **settings}
        completer = Completer(
            self.supervisor,
            lambda: self.snapshot,
            CompletionSettings(**settings),
            self.provider,
        )
        self._numbers += 1
        request = Request(replace(cursor, private=private), f"document {self._numbers}", "invoked")
        return await completer.complete(request)


async def failing(supervisor: Supervisor, behave: Behavior) -> str:
    """Return the message to the user about a server that fails by `behave`. The local model must generate instead."""
    async with standing_in(behave) as server:
        editor = Editor(supervisor, server.url)
        completion = await editor.complete()
        assert completion.text and completion.model == supervisor.model.stem
        assert len(server.asked) == 1
        await editor.complete()
        assert len(server.asked) == 1, "a server that has just failed is asked again"
        await editor.provider.close()
    [problem] = editor.problems
    return problem


async def test_the_server_generates(supervisor: Supervisor) -> None:
    async with standing_in(stream("width, ", "height", "))")) as server:
        editor = Editor(supervisor, server.url, key="secret")
        completion = await editor.complete(policy="always")
        assert (completion.text, completion.model) == (WRITTEN, "coder")
        assert [hit.chunk.path for hit in completion.hits] == ["geometry.py"]
        [asked] = server.asked
        assert asked["prompt"].endswith(BEFORE) and "# def area_of_rectangle" in asked["prompt"]
        assert (asked["suffix"], asked["model"], asked["temperature"], asked["stream"]) == ("\n", "coder", 0, True)
        assert server.headers[0]["authorization"] == "bearer secret"
        assert editor.problems == [""]
        await editor.provider.close()


async def test_text_that_is_private_is_completed_by_the_local_model(supervisor: Supervisor) -> None:
    secret = Cursor("/w/run.sh", "export DB_PASSWORD=kX9mQ2pLw7z\necho ", "\n", "bash")
    async with standing_in(stream(WRITTEN)) as server:
        editor = Editor(supervisor, server.url)
        for policy in ("never", "always"):
            ignored = await editor.complete(private="left out by .gitignore", policy=policy)
            assert (ignored.withheld, ignored.model) == ("left out by .gitignore", supervisor.model.stem)
            withheld = await editor.complete(secret, policy=policy)
            assert "password" in withheld.withheld and withheld.model == supervisor.model.stem
        assert server.asked == []
        assert (await editor.complete()).withheld == ""
        assert len(server.asked) == 1
        await editor.provider.close()


async def test_a_server_that_does_not_stream(supervisor: Supervisor) -> None:
    async with standing_in(answer({"text": WRITTEN, "finish_reason": "stop"})) as server:
        editor = Editor(supervisor, server.url, family="starcoder")
        assert (await editor.complete()).text == WRITTEN
        assert server.asked[0]["prompt"] == f"<fim_prefix>{BEFORE}<fim_suffix>\n<fim_middle>"
        assert "suffix" not in server.asked[0]
        await editor.provider.close()


async def test_the_plain_generation_runs_during_the_decision_and_is_cancelled(supervisor: Supervisor) -> None:
    async def behave(writer: asyncio.StreamWriter, asked: Asked) -> None:
        await (stream(WRITTEN) if "width * height" in asked["prompt"] else never)(writer, asked)

    class Slow:
        def search(self, cursor: Cursor, k: int) -> tuple[Hit, ...]:
            while not server.asked:
                time.sleep(0.01)
            return snapshot.search(cursor, k)

    async with standing_in(behave) as server:
        editor = Editor(supervisor, server.url)
        snapshot, editor.snapshot = editor.snapshot, Slow()
        completion = await editor.complete(policy="selective", threshold=0.0)
        assert completion.decision is not None and completion.decision.retrieve
        assert (completion.text, completion.model) == (WRITTEN, "coder")
        assert ["width * height" in asked["prompt"] for asked in server.asked] == [False, True]
        await server.until(lambda: server.disconnected == 1)
        await editor.provider.close()


async def test_a_cancelled_request_closes_its_connection(supervisor: Supervisor) -> None:
    async with standing_in(stream("wid", 1000.0)) as server:
        editor = Editor(supervisor, server.url)
        task = asyncio.create_task(editor.complete())
        await server.until(lambda: bool(server.asked))
        task.cancel()
        await server.until(lambda: server.disconnected == 1)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [problem for problem in editor.problems if problem] == [], "a cancellation is reported as a failure"
        await editor.provider.close()


@pytest.mark.parametrize(
    ("behave", "expected"),
    [
        (status(500), "failed (500)"),
        (status(503), "is not ready (503)"),
        (status(429), "too many requests (429)"),
        (status(401), "rejects the API key (401). Set REPOFORMER_API_KEY"),
        (status(404), "has no such address or model (404)"),
        (status(400), "rejects the request (400)"),
        (status(302, "Location: http://elsewhere.example/"), "rejects the request (302)"),
        (status(200, "Content-Type: text/html", body=b"<html>Please log in</html>"), "is not a completion"),
        (status(200, "Content-Type: application/json", body=b"{}"), "is not a completion"),
        (status(200, "Content-Type: application/json", body=b"\xff\xfe"), "is not a completion"),
        (stream(b"data: {not json\n\n"), "is not a completion"),
        (stream(b'data: {"choices": [{"text": 1}]}\n\n'), "is not a completion"),
        (stream(b"data: []\n\n"), "is not a completion"),
        (stream(b"x" * (wire.MAX_LINE_BYTES + 70_000)), "is not a completion"),
        (stream(done=False), "closed the connection before its answer was complete"),
        (stream(b"\x00\xff" * 40, done=False), "closed the connection before its answer was complete"),
        # llama-server, while it loads its model
        (refusal(503, "Loading model", type="unavailable_error"), "is not ready (503)"),
        # vLLM, for most models
        (
            refusal(400, "suffix is only supported for models with FIM completion rendering", param="suffix"),
            "does not support `suffix`. Set `serverPrompt` to the format of its model",
        ),
        # llama-server, which ignores the suffix
        (stream(WRITTEN, head="Server: llama.cpp"), "does not support `suffix`. Set `serverPrompt`"),
        (
            refusal(
                400,
                "request (2860 tokens) exceeds the available context size (2048 tokens), try increasing it",
                type="exceed_context_size_error",
            ),
            "The prompt is longer than the context",
        ),
        (
            refusal(400, "This model's maximum context length is 2048 tokens.", type="BadRequestError"),
            "The prompt is longer than the context",
        ),
        # vLLM, if its engine dies before the first token, and if a prompt is refused after the headers of the answer
        (stream(ENGINE_DIED, done=False), "failed (500)"),
        (stream(b'data: {"error": {"message": "maximum context length", "code": 400}}\n\n'), "longer than the context"),
        (stream(b'data: {"error": "out of memory"}\n\n'), "failed (500)"),
        # an error that is too long, or not in OpenAI's format
        (refusal(400, "suffix " * 10_000), "rejects the request (400)"),
        (status(400, "Content-Type: application/json", body=b'["suffix"]'), "rejects the request (400)"),
        (status(400, "Content-Type: text/html", body=b"<html>suffix</html>"), "rejects the request (400)"),
        # llama-cpp-python, which ends an answer when another request arrives
        (stream(b"data: [DONE]\n\n", done=False), "ended its answer before the first token"),
    ],
)
async def test_a_server_that_fails(supervisor: Supervisor, behave: Behavior, expected: str) -> None:
    assert expected in await failing(supervisor, behave)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("behave", [never, stream(1000.0), stream(*(b": still here\n\n", 0.1) * 1000)])
async def test_a_server_that_does_not_answer(supervisor: Supervisor, behave: Behavior) -> None:
    assert "did not answer in time" in await failing(supervisor, behave)


async def test_llama_server_with_the_markers_of_the_model(supervisor: Supervisor) -> None:
    path = "/models/coder.gguf"  # llama-server ignores the requested name, and sends the name of its own model
    pieces = event("width, ", model=path), event("height))", model=path), event("", "stop", model=path)
    async with standing_in(stream(*pieces, b"data: [DONE]\n\n", done=False, head="Server: llama.cpp")) as server:
        editor = Editor(supervisor, server.url, family="qwen")
        completion = await editor.complete()
        assert (completion.text, completion.model) == (WRITTEN, path)
        assert editor.problems == [""]
        await editor.provider.close()


async def test_vllm_with_the_markers_of_the_model(supervisor: Supervisor) -> None:
    # The answer of vLLM 0.32.0. It keeps back as many characters as the longest `stop` has, so the first events have no
    # text, and the last one has the text of several tokens.
    head = '{"id":"cmpl-b6ead445a2eb0f58","object":"text_completion","created":1796031106,"model":"qwen-hf","choices":'
    more = '"stop_reason":null,"prompt_token_ids":null,"token_ids":null'
    pieces = [
        f'data: {head}[{{"index":0,"text":"{text}","logprobs":null,"finish_reason":null,{more}}}]}}\n\n'.encode()
        for text in ("", "", "w", "id", "th, ")
    ]
    end = (
        f'data: {head}[{{"index":0,"text":"height))","logprobs":null,"finish_reason":"stop",{more}}}],'
        '"system_fingerprint":"vllm-0.32.0-49e560fb"}\n\ndata: [DONE]\n\n'
    )
    async with standing_in(stream(*pieces, end.encode(), done=False)) as server:
        editor = Editor(supervisor, server.url, family="qwen")
        completion = await editor.complete()
        assert (completion.text, completion.model) == (WRITTEN, "qwen-hf")
        # Otherwise, vLLM would use the penalty of the model's `generation_config.json`, and hide special tokens.
        assert (server.asked[0]["repetition_penalty"], server.asked[0]["skip_special_tokens"]) == (1, False)
        await editor.provider.close()


@pytest.mark.parametrize(
    "refuse",
    [
        refusal(400, "Unrecognized request argument supplied: repetition_penalty"),
        # the format of FastAPI, which the message is not read from
        status(
            422,
            "Content-Type: application/json",
            body=b'{"detail": [{"type": "extra_forbidden", "loc": ["body", "skip_special_tokens"]}]}',
        ),
    ],
)
async def test_a_server_that_accepts_only_the_parameters_of_openai(supervisor: Supervisor, refuse: Behavior) -> None:
    async def behave(writer: asyncio.StreamWriter, asked: Asked) -> None:
        await (refuse if wire.EXTENSIONS.keys() & asked.keys() else stream(WRITTEN))(writer, asked)

    async with standing_in(behave) as server:
        editor = Editor(supervisor, server.url, family="qwen")
        for _ in range(2):
            completion = await editor.complete()
            assert (completion.text, completion.model) == (WRITTEN, "coder")
        # Only the first request is sent twice.
        assert [bool(wire.EXTENSIONS.keys() & asked.keys()) for asked in server.asked] == [True, False, False]
        assert editor.problems == [""]
        await editor.provider.close()


async def test_a_server_whose_refusal_repeats_the_prompt(supervisor: Supervisor) -> None:
    code = replace(CALL, prefix="repetition_penalty = 1\n" + BEFORE)

    async def behave(writer: asyncio.StreamWriter, asked: Asked) -> None:
        await refusal(400, f"This prompt is too long for the context: {asked['prompt']}")(writer, asked)

    async with standing_in(behave) as server:
        editor = Editor(supervisor, server.url, family="qwen")
        await editor.complete(code)
        server.behave, editor.now = stream(WRITTEN), 100.0
        assert (await editor.complete()).model == "coder"
        assert wire.EXTENSIONS.items() <= server.asked[-1].items(), "the server does not refuse these parameters"
        await editor.provider.close()


async def test_no_server_listens(supervisor: Supervisor) -> None:
    async with standing_in(never) as server:
        url = server.url
    editor = Editor(supervisor, url)
    assert (await editor.complete()).model == supervisor.model.stem
    assert "cannot be reached" in editor.problems[0]
    await editor.provider.close()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "behave",
    [
        stream("width, height))\nprint(", done=False),
        stream("width, height))\nprint(", 1000.0),
        stream("width, height))\n", b"data: {\n\n"),
        stream("width, height))\nprint(", ENGINE_DIED, done=False),
        # llama-cpp-python, if another request arrives: no `finish_reason`
        stream("width, height))\nprint(", b"data: [DONE]\n\n", done=False),
    ],
)
async def test_the_final_part_of_an_incomplete_answer_is_shown(supervisor: Supervisor, behave: Behavior) -> None:
    async with standing_in(behave) as server:
        editor = Editor(supervisor, server.url)
        completion = await editor.complete(multiline=False)
        assert (completion.text, completion.model) == (WRITTEN, "coder")
        await editor.provider.close()


async def test_a_recovered_server_is_used_again(supervisor: Supervisor) -> None:
    async with standing_in(status(503)) as server:
        editor = Editor(supervisor, server.url)
        await editor.complete()
        server.behave = stream(WRITTEN)
        editor.now = 0.9
        assert (await editor.complete()).model != "coder"
        editor.now = 1.1
        assert (await editor.complete()).model == "coder"
        # The second message is empty, because the server is available again.
        assert [bool(problem) for problem in editor.problems] == [True, False]
        await editor.provider.close()


async def test_retry_after_is_respected(supervisor: Supervisor) -> None:
    async with standing_in(status(429, "Retry-After: 30")) as server:
        editor = Editor(supervisor, server.url)
        await editor.complete()
        editor.now = 29.0
        await editor.complete()
        assert len(server.asked) == 1
        editor.now = 31.0
        await editor.complete()
        assert len(server.asked) == 2
        await editor.provider.close()


async def test_each_failure_doubles_the_delay() -> None:
    now, pauses = 0.0, []
    chances = iter([0.0, 0.5, 1.0, *[0.5] * 7])
    retry = RetrySchedule(lambda: now, lambda: next(chances))
    for _ in range(9):
        began = now
        retry.failed()
        while not retry.allowed():
            now += 0.5
        pauses.append(now - began)
    assert pauses == [0.5, 2.0, 6.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    retry.succeeded()
    retry.failed()
    now += 1.0
    assert retry.allowed()


# -- which servers get the key -----------------------------------------------------------------------------------------


async def test_a_certificate_that_does_not_verify(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    async with standing_in(stream(WRITTEN), tls) as server:
        editor = Editor(supervisor, server.url, key="secret")
        assert (await editor.complete()).model == supervisor.model.stem
        assert "certificate of 127.0.0.1" in editor.problems[0] and "cannot be verified" in editor.problems[0]
        assert server.asked == [] == server.headers, "code or the key was sent"
        await editor.provider.close()

        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        editor = Editor(supervisor, server.url, key="secret")
        # A user can add the certificate authority of a company with this environment variable.
        assert (await editor.complete()).model == "coder"
        await editor.provider.close()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://models.example/v1", "The API key is not sent to models.example without encryption"),
        ("ftp://models.example", "is not an http"),
        ("models.example:8080", "is not an http"),
        ("http://[::1", "is not an http"),
        ("", "is not an http"),
    ],
)
async def test_addresses_that_get_no_request(url: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was sent")

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", refuse)
    connection = wire.Wire(url, "secret")
    with pytest.raises(ServerUnavailable, match=expected):
        await anext(connection.stream("completions", {}))
    await connection.close()


@pytest.mark.parametrize(
    ("proxy", "expected"),
    [
        ("foo://127.0.0.1:9", "A proxy in the environment cannot be used: Unknown scheme"),
        ("http://[::bad", "A proxy in the environment cannot be used: Invalid port"),
        ("socks5://127.0.0.1:9", "models.example"),
    ],
)
async def test_proxies_that_cannot_be_used(proxy: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    connection = wire.Wire("https://models.example", "secret")
    with pytest.raises(ServerUnavailable, match=expected):
        await anext(connection.stream("completions", {}))
    await connection.close()


# -- the server decides -----------------------------------------------------------------------------------------------

HIDDEN = {  # llama-server without `--special`
    "text": "",
    "logprobs": {
        "content": [
            {
                "id": 9,
                "token": "",
                "top_logprobs": [
                    {"id": 9, "token": "", "logprob": math.log(0.7)},
                    {"id": 198, "token": "\n", "logprob": math.log(0.1)},
                ],
            }
        ]
    },
}
TABLE = {"text": "<fim_middle>", "logprobs": {"top_logprobs": [{"<fim_middle>": math.log(0.6), "<cc>": math.log(0.3)}]}}
# vLLM 0.32.0, for a model with more numbers of tokens than its tokenizer has tokens. The other numbers have no text.
VLLM = {
    "index": 0,
    "text": "\n",
    "logprobs": {
        "text_offset": [0],
        "token_logprobs": [-0.015400891192257404],
        "tokens": ["\n"],
        "top_logprobs": [
            {
                "\n": -0.015400891192257404,
                "<|im_end|>": -4.4529008865356445,
                "\n\n": -6.1404008865356445,
                "class": -7.7654008865356445,
                "": -12.359150886535645,
            }
        ],
    },
    "finish_reason": "length",
}
LIST = {
    "text": "",
    "logprobs": {
        "content": [
            {"top_logprobs": [{"token": "<cc>", "logprob": math.log(0.7)}, {"token": "x", "logprob": math.log(0.1)}]}
        ]
    },
}


async def test_a_token_without_text_that_is_improbable(supervisor: Supervisor) -> None:
    async with standing_in(answer(VLLM)) as server:
        editor = Editor(supervisor, server.url, family="repoformer", decides=True)
        reading = await editor.provider.reader(await supervisor.engine()).read("slot", CALL)
        assert (reading.p_cc, reading.cc_is_top, editor.problems) == (0.0, False, [""])
        await editor.provider.close()


@pytest.mark.parametrize(("choice", "p_cc", "top"), [(TABLE, 0.3, False), (LIST, 0.7, True)])
async def test_the_decision_of_a_server(
    supervisor: Supervisor, choice: dict[str, object], p_cc: float, top: bool
) -> None:
    async def behave(writer: asyncio.StreamWriter, asked: Asked) -> None:
        await (answer(choice) if "logprobs" in asked else stream(WRITTEN))(writer, asked)

    async with standing_in(behave) as server:
        editor = Editor(supervisor, server.url, family="repoformer", decides=True)
        engine = await supervisor.engine()
        reading = await editor.provider.reader(engine).read("slot", CALL)
        assert server.asked[0]["prompt"] == f"<fim_prefix>{BEFORE}<fim_suffix>\n<eof>"
        assert (server.asked[0]["max_tokens"], server.asked[0]["logprobs"]) == (1, 20)
        assert reading.p_cc == pytest.approx(p_cc)
        assert reading.cc_is_top is top
        completion = await editor.complete(policy="selective", threshold=0.2)
        assert completion.decision is not None
        assert (completion.decision.source, completion.decision.retrieve) == ("token", True)
        assert completion.decision.p_retrieve == pytest.approx(p_cc)
        # The generation without chunks starts before the decision, and its request can arrive last.
        retrieving = f"<fim_prefix>{BEFORE}<fim_suffix>\n<eof><cc>\n\n# Here are"
        assert any(asked["prompt"].startswith(retrieving) for asked in server.asked)
        await editor.provider.close()


@pytest.mark.parametrize(
    ("behave", "expected"),
    [
        (answer({**TABLE, "logprobs": None}), "returns no logprobs. Turn off the setting `serverDecides`"),
        (answer(HIDDEN), "hides special tokens in `logprobs`. If it is llama-server, start it with `--special`"),
    ],
)
async def test_a_server_that_cannot_decide(supervisor: Supervisor, behave: Behavior, expected: str) -> None:
    async with standing_in(behave) as server:
        editor = Editor(supervisor, server.url, family="repoformer", decides=True)
        engine = await supervisor.engine()
        reading = await editor.provider.reader(engine).read("slot", CALL)
        assert reading.p_cc is None, "the reading is not that of the local model, which has no `<cc>`"
        assert expected in editor.problems[0]
        await editor.provider.close()
