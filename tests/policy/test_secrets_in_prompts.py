"""No planted secret gets into a prompt by a chunk, and none is sent to a generating server."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from indexer.languages import language_of
from indexer.model import Cursor, Hit
from indexer.snapshot import Snapshot
from policy.generators.server import Server
from policy.generators.text import FAMILIES, TextPrompt, TextPrompts
from policy.generators.wire import Wire
from policy.prompting.prompt import LAYOUTS, ROLES, Budgets, PromptBuilder, Vocabulary
from tests.planted_secrets import COUNT, planted

BUDGETS = Budgets(left=2_000, right=1_000, context=8_000)
MARKER = 0x110000  # the token of the first role; smaller tokens are the code points of characters


class Characters:
    """A tokenizer with one token per character."""

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]


def language_at(path: str) -> str:
    language = language_of(path)
    return language.id if language else ""


@pytest.fixture(scope="module")
def found() -> list[tuple[Cursor, tuple[Hit, ...], str]]:
    """For each planted secret: a cursor, the hits of its search, and the secret.

    The lines before the cursor are the lines before the secret. So the search would find the chunk with the secret if
    the index contained such a chunk.
    """
    sources = [planted(seed) for seed in range(COUNT)]
    named = [(f"f{seed}/{path}", text) for seed, (path, text, _) in enumerate(sources)]
    snapshot = Snapshot.of(named, root="/w")
    asked = []
    for path, text, value in sources:
        lines = text.split(value)[0].split("\n")[-12:]
        cursor = Cursor(f"/w/new_{path}", "\n".join(lines), "", language_at(path))
        asked.append((cursor, snapshot.search(cursor, 10), value))
    return asked


def texts(cursor: Cursor, hits: tuple[Hit, ...]) -> Iterator[str]:
    """Yield the text of the prompt in every layout for local models, and for every family of models on a server."""
    chunks = [hit.chunk for hit in hits]
    vocabulary = Vocabulary({role: MARKER + number for number, role in enumerate(ROLES)})
    for layout in LAYOUTS.values():
        prompt = PromptBuilder(layout, vocabulary, Characters(), BUDGETS).with_context(cursor, chunks)
        assert bool(prompt.chunks) == bool(chunks)
        yield "".join(chr(token) for token in prompt.whole if token < MARKER)
    for family in FAMILIES:
        yield shown(TextPrompts(family, BUDGETS).generate(cursor, chunks))


def shown(prompt: TextPrompt) -> str:
    return prompt.text + (prompt.suffix or "")


def test_no_chunk_brings_a_secret_into_a_prompt(found: list[tuple[Cursor, tuple[Hit, ...], str]]) -> None:
    secrets = [value for _, _, value in found]
    assert sum(bool(hits) for _, hits, _ in found) > COUNT * 0.9, "too few searches have hits"
    leaked = {
        secret for cursor, hits, _ in found for text in texts(cursor, hits) for secret in secrets if secret in text
    }
    assert not leaked


def server(family: str, budgets: Budgets) -> Server:
    return Server(Wire("http://localhost:1", ""), "coder", TextPrompts(family, budgets), lambda _problem: None)


@pytest.mark.parametrize(
    ("budgets", "least_sent"), [(BUDGETS, 0), (Budgets(left=24, right=12, context=10), 100)], ids=["long", "short"]
)
def test_a_server_is_sent_no_text_with_a_secret(budgets: Budgets, least_sent: int) -> None:
    """The cursor is before, within, or after the secret. A short prompt contains only a part of the secret's line."""
    draw, sent, leaked = random.Random(0), 0, []
    prompts, generator = TextPrompts("suffix", budgets), server("suffix", budgets)
    for seed in range(COUNT):
        path, text, value = planted(seed)
        at = text.index(value)
        for place in (0, at, at + len(value) // 2, at + len(value), draw.randrange(len(text)), len(text)):
            cursor = Cursor(f"/w/{path}", text[:place], text[place:], language_at(path))
            if generator.withholds(cursor):
                continue
            sent += 1
            written = prompts.generate(cursor, None)
            parts = (written.text, written.suffix or "")
            if any(value[2:-2] in part for part in (*parts, "".join(parts))):
                leaked.append((path, [line for line in text.split("\n") if value in line], place - at))
    assert sent >= least_sent, "too few prompts are sent"
    assert not leaked


def test_a_server_is_not_sent_the_end_of_a_long_key() -> None:
    key = "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEpAIBAAKCAQEAx7\n" * 400 + "-----END RSA PRIVATE KEY-----\n"
    generator = server("suffix", Budgets(left=24, right=12, context=10))
    for text, place in ((key, 7_000), (key + "\n" * 1_200, len(key) + 1_000), (key, len(key))):
        cursor = Cursor("/w/a.py", text[:place], text[place:], "python")
        assert bool(generator.withholds(cursor)) == (place <= len(key))
