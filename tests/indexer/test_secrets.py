"""Which chunks of a file are withheld: all that show a secret or a part of one, and no others."""

from __future__ import annotations

import pytest

from indexer.chunking import Chunking
from indexer.snapshot import Snapshot

PASSWORD = "kX9#mQ2pLw"
KEY = "\n".join(f"{n:02}" + "MIIEpAIBAAKCAQEA7bq3x1oVp9" * 2 for n in range(49))
BODY = "\n".join(f"    value_{n} = compute_{n}(host, {n})" for n in range(60))
OTHER = "\n".join(f"def other_{n}(thing):\n    return thing + {n}\n\n" for n in range(12))


def shown(text: str, path: str = "a.py", chunking: Chunking | None = None) -> str:
    """Return all text of a file that a search can return."""
    chunks = Snapshot.of([(path, text)], chunking).all_chunks()
    return "\n".join(f"{chunk.header}\n{chunk.text}" for chunk in chunks)


def block(end: str = "-----END RSA PRIVATE KEY-----\n") -> str:
    return f"-----BEGIN RSA PRIVATE KEY-----\n{KEY}\n{end}"


@pytest.mark.parametrize(
    "text",
    [
        block(),
        f'PEM = """{block()}"""\n',
        "".join(f"# {line}\n" for line in block().splitlines()),
        "PEM = (\n" + "".join(f'    "{line}\\n"\n' for line in block().splitlines()) + ")\n",
        block(end=""),
        f'"""{block()}"""\nKEYS = """{block()}"""\n',
    ],
    ids=["bare", "a literal", "a comment", "lines of literals", "without an end", "two"],
)
@pytest.mark.parametrize("chunking", [Chunking(), Chunking(style="window")], ids=["structure", "windows"])
def test_a_key_of_many_lines_is_withheld_completely(text: str, chunking: Chunking) -> None:
    assert "MII" not in shown(f"{OTHER}{text}", chunking=chunking)
    assert "other_0" in shown(f"{OTHER}{text}", chunking=chunking)
    if "END" in text:
        assert "other_11" in shown(f"{OTHER}{text}{OTHER}", chunking=chunking)


@pytest.mark.parametrize(
    "head",
    [
        f'def connect(host, password="{PASSWORD}"):',
        f'def connect(\n    host: str,\n    password: str =\n        "{PASSWORD}",\n):',
        f'class Client(Base, token="{PASSWORD}"):\n  def connect(host):',
        # A header has 160 columns. It ends before, in and after the password.
        *(f'def connect({"x" * length}, password="{PASSWORD}"):' for length in range(110, 150)),
    ],
)
def test_a_header_with_a_secret_withholds_its_chunks(head: str) -> None:
    text = shown(f"{head}\n{BODY}\n\n\n{OTHER}")
    assert PASSWORD[:6] not in text
    assert "other_3" in text


def test_a_password_in_a_body_withholds_only_its_part() -> None:
    text = shown(f'def connect(host):\n{BODY}\n    open(password="{PASSWORD}")\n')
    assert PASSWORD not in text
    assert "value_0" in text
    assert "value_59" not in text


@pytest.mark.parametrize(
    "line",
    [
        f'password = "{PASSWORD}"',
        f"API_KEY: str = '{PASSWORD}'",
        f'settings["secret"] = "{PASSWORD}"',
        "url = 'postgres://someone:hunter2hunter2@db/x'",
        f'password = (\n        "{PASSWORD}"\n)',
        "aws = AKIAABCDEFGHIJKLMNOP",
    ],
)
def test_a_line_with_a_secret_is_withheld(line: str) -> None:
    assert shown(f"{line}\n") == ""


@pytest.mark.parametrize("line", ['field = "user_password"', 'password = "changeme"', 'password = ""', "x = token_1"])
def test_plain_words_are_not_withheld(line: str) -> None:
    assert line in shown(f"{line}\n")
