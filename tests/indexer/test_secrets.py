"""All chunks that contain a secret or a part of one are withheld, and no other chunks."""

from __future__ import annotations

import pytest

from indexer.chunking import Chunking
from indexer.languages import language_of
from indexer.secrets import secret_spans
from indexer.snapshot import Snapshot

PASSWORD = "kX9#mQ2pLw"
KEY = "\n".join(f"{n:02}" + "MIIEpAIBAAKCAQEA7bq3x1oVp9" * 2 for n in range(49))
BODY = "\n".join(f"    value_{n} = compute_{n}(host, {n})" for n in range(60))
OTHER = "\n".join(f"def other_{n}(thing):\n    return thing + {n}\n\n" for n in range(12))


def shown(text: str, path: str = "a.py", chunking: Chunking | None = None) -> str:
    """Return the headers and texts of all chunks of a file."""
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
        # Headers are cut after 160 columns: here before the password, within it, and after it.
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
        'password = "hunter2"',
        f"API_KEY: str = '{PASSWORD}'",
        f'settings["secret"] = "{PASSWORD}"',
        "url = 'postgres://someone:hunter2hunter2@db/x'",
        f'password = (\n        "{PASSWORD}"\n)',
        "aws = AKIAABCDEFGHIJKLMNOP",
    ],
)
def test_a_line_with_a_secret_is_withheld(line: str) -> None:
    assert shown(f"{line}\n") == ""


@pytest.mark.parametrize(
    "line",
    ['field = "user_password"', 'password = "password2"', 'password = "changeme"', 'password = ""', "x = token_1"],
)
def test_plain_words_are_not_withheld(line: str) -> None:
    assert line in shown(f"{line}\n")


FORMS = [
    ("c.yaml", "  - name: DB_PASSWORD\n    value: @\n"),
    ("c.yaml", '  - ParameterKey: DBPassword\n    ParameterValue: "@"\n'),
    ("c.yaml", "  password: |\n    @\n"),
    ("c.toml", 'token = """\n@"""\n'),
    ("c.properties", "app.secret=\\\n    @\n"),
    ("c.xml", "<server><password>@</password></server>\n"),
    ("x.txt", "APP_KEY=base64:@\n"),
    ("x.txt", "FERNET_KEY=@\n"),
    ("main.tf", '  master_password         = "@"\n'),
    ("main.tf", 'variable "token" {\n  validation {\n    condition = true\n  }\n  default = "@"\n}\n'),
    ("main.tf", '  set {\n    name  = "adminPassword"\n    value = "@"\n  }\n'),
    ("main.tf", '  environment = [{ name = "API_KEY", value = "@" }]\n'),
    ("s.sql", "CREATE USER app IDENTIFIED BY @;\n"),
    ("Dockerfile", "RUN echo 'root:@' | chpasswd\n"),
    ("Makefile", "x:\ndefine TOKEN\n@\nendef\n"),
    ("d.sh", "curl -uadmin:@ https://x\n"),
    ("d.sh", "docker login -u u -p @ reg\n"),
    ("d.sh", "echo @ | docker login -u u --password-stdin\n"),
    ("d.sh", "echo '@' | sudo -S apt update\n"),
    ("d.sh", "redis-cli -a @ ping\n"),
    ("d.sh", "openssl enc -k @ -in a\n"),
    ("d.sh", "vault login @\n"),
    ("d.sh", "read -r PASS <<< '@'\n"),
    ("d.sh", "PASSWORDS=(@ b)\n"),
    ("d.sh", "export PASSWORD=kX9\\$@\n"),
    ("a.py", 'PASSWORDS = ["@", "x"]\n'),
    ("a.py", 'requests.get(url, auth=("admin", "@"))\n'),
    ("a.py", 'requests.get(url(x), auth=HTTPBasicAuth("admin", "@"))\n'),
    ("a.py", 'headers = {"Authorization": f"Bearer @"}\n'),
    ("a.py", 'CIPHER = Fernet(b"@")\n'),
    ("a.py", 'token = os.getenv("TOKEN") or "@"\n'),
    ("a.py", 'password = Field(default="@")\n'),
    ("a.py", 'login("admin", "@")\n'),
    ("a.py", 'EMAIL_HOST_PASSWORD = "abcd efgh ijkl @"\n'),
    ("a.rs", 'let password = String::from("@");\n'),
    ("A.java", 'DriverManager.getConnection(\n    url,\n    "sa",\n    "@");\n'),
    ("a.ts", "password?: string = '@'\n"),
    ("a.js", "password: process.env.X || '@',\n"),
    ("a.js", "jwt.sign(payload, '@')\n"),
    ("a.rb", "http.basic_auth 'admin', '@'\n"),
    ("a.php", "$pdo = new PDO('mysql:host=h', 'root', '@');\n"),
    ("Program.cs", 'new NetworkCredential("user", "@")\n'),
    ("a.ps1", '$pw = ConvertTo-SecureString "@" -AsPlainText -Force\n'),
    ("a.lua", "local password = [[@]]\n"),
    ("a.r", 'password <- "@"\n'),
    ("a.pl", "my $password = q(@);\n"),
]


@pytest.mark.parametrize(("path", "form"), FORMS)
def test_a_value_is_found_in_each_form_of_an_assignment(path: str, form: str) -> None:
    value = "mnop" if "efgh" in form else "kX9mQ2pLw8zT"
    text = form.replace("@", value)
    language = language_of(path)
    found = list(secret_spans(text, language.id if language else ""))
    assert any(start <= text.index(value) < end for start, end in found)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("a.py", 'password = getpass.getpass("Password: ")'),
        ("a.py", 'token_type = "Bearer"'),
        ("a.py", "if not login(user, password): raise ValueError('no-such-user')"),
        ("a.js", 'const password = document.querySelector("#password1");'),
        ("a.js", "jwt.sign(payload, secret, { algorithm: 'HS256' })"),
        ("a.js", "/** @param {{node: Token, value: string}} parent The parent. */"),
        ("a.php", "'ssh2_auth_password',\n        'ssh2_auth_pubkey_file',"),
        ("d.sh", "password=$(pass show db/prod2)"),
        ("d.sh", "echo $TOKEN2 | docker login -u u --password-stdin"),
        ("d.sh", "vault login $VAULT_TOKEN2"),
        ("d.sh", "openssl enc -k $KEY_2 -in a"),
        ("Makefile", "TOKEN ?= $(shell cat token2.txt)"),
        ("main.tf", "password = random_password.db2.result"),
        ("s.sql", "ALTER TABLE users ADD COLUMN password_hash VARCHAR(255) NOT NULL;"),
    ],
)
def test_code_about_secrets_is_not_withheld(path: str, line: str) -> None:
    language = language_of(path)
    assert not list(secret_spans(f"{line}\n", language.id if language else ""))
