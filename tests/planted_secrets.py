"""Hundreds of source texts with a secret, for tests that no secret enters the index or a prompt."""

from __future__ import annotations

import base64
import random
import string

# For each file name, lines in which `planted` replaces `@` by a secret, and `NAME`, `name` and `Name` by the name of a
# variable in upper case, lower case, and title case.
KINDS = {
    "deploy.sh": ("export NAME=@", "NAME='@'", "NAME=@ psql", "./run --name=@ x", 'NAME="${NAME:-@}"', "# name: @",
                  "local name=@", "curl -u admin:@ https://x.org", "mysql -u root -p@ db", "echo NAME=@ >> .env"),
    "Dockerfile.prod": ("ENV NAME=@", "ENV NAME @", "ARG NAME=@", "ENV A=1 NAME=@ B=2", "RUN run --name @",
                        "ENV NAME '@'"),
    "Makefile": ("NAME := @", "NAME=@", "NAME ?= @", "export NAME = @", "run:\n\tNAME=@ ./run"),
    "main.tf": ('name = "@"', 'variable "db_name" {\n  type = string\n  default = "@"\n}', 'locals { name = "@" }',
                'environment = { NAME = "@" }'),
    "schema.sql": ("CREATE USER x IDENTIFIED BY '@';", "ALTER ROLE x WITH PASSWORD '@';", "-- name: @",
                   "CREATE USER x WITH LOGIN PASSWORD '@' SUPERUSER;", "UPDATE config SET name = '@';"),
    "settings.py": ('NAME = "@"', "config['name'] = '@'", 'connect(host, name="@")', 'os.environ.get("NAME", "@")',
                    '{"name": "@"}', 'ENV = """\nNAME=@\n"""', "# name: @", 'dsn = "host=x;Name=@;user=y"',
                    'url = "postgres://u:@@db/x"', "name: str = '@'", 'client.set_name("@")', 'if name == "@": pass'),
    "app.js": ("const name = '@';", "x({ name: '@' });", "process.env.NAME || '@'", "process.env['NAME'] ?? `@`",
               'headers["X-Name"] = "@";', "// name = @", "fetch(`https://x.org?name=@&b=1`)"),
    "Main.java": ('String name = "@";', '.withName("@")', 'props.setProperty("name", "@");', '@Value("name=@")',
                  'String u = "jdbc:x://h?user=u&name=@";'),
    "main.go": ('name := "@"', 'const Name = "@"', 'os.Setenv("NAME", "@")', "Config{Name: `@`}",
                'var name string = "@"'),
    "app.rb": ("name = '@'", "config.name = '@'", "ENV['NAME'] ||= '@'", "{ name: '@' }", "{ :name => '@' }"),
    "index.php": ("$name = '@';", "define('NAME', '@');", "['name' => '@'];", "putenv('NAME=@');"),
    "Program.cs": ('var name = "@";', '"Server=x;Name=@;"', '["name"] = "@"', 'Name = @"@";'),
    "setup.ps1": ('$name = "@"', '$env:NAME = "@"', "./run -Name @ -Force", 'ConvertTo-SecureString -Name "@"'),
    "CMakeLists.txt": ('set(NAME "@")', "set(NAME @)", "-DNAME=@"),
    "main.c": ('#define NAME "@"', 'char name[] = "@";', '{ .name = "@" }'),
}  # fmt: skip
COUNT = 525  # the number of texts in a test; a multiple of the number of file names, so each gets equally many
NAMES = ("password", "db_password", "api_key", "secret", "auth_token", "access_token", "client_secret", "private_key")
LETTERS_AND_DIGITS = string.ascii_letters + string.digits


def secret(draw: random.Random) -> str:
    """Return a random password, or a random key in the format of a well-known service."""

    def some(alphabet: str, length: int) -> str:
        while True:
            made = "".join(draw.choices(alphabet, k=length))
            if any(c.isdigit() for c in made) and any(c.isalpha() for c in made):
                return made

    return draw.choice(
        (
            lambda: some(LETTERS_AND_DIGITS, 12),
            lambda: some(LETTERS_AND_DIGITS + "!#^_+-", 16),
            lambda: some(string.ascii_lowercase + string.digits, 20),
            lambda: some("0123456789abcdef", 32),
            lambda: "A" + base64.b64encode(draw.randbytes(30)).decode()[1:],
            lambda: "AKIA" + some(string.ascii_uppercase + string.digits, 16),
            lambda: "ghp_" + some(LETTERS_AND_DIGITS, 36),
            lambda: "sk-proj-" + some(LETTERS_AND_DIGITS, 40),
        )
    )()


def planted(seed: int) -> tuple[str, str, str]:
    """Return a file name, a text that contains a secret, and the secret. The same seed returns the same values."""
    draw = random.Random(seed)
    path = sorted(KINDS)[seed % len(KINDS)]
    name, value = draw.choice(NAMES), secret(draw)
    line = draw.choice(KINDS[path])
    at = line.rindex("@") if "u:" not in line else line.index("@")
    line = line[:at] + "\0" + line[at + 1 :]
    line = (
        line.replace("NAME", name.upper())
        .replace("name", name)
        .replace("Name", name.title().replace("_", ""))
        .replace("\0", value)
    )
    around = "\n\n".join(f"filler_{number} {number}" for number in range(draw.randint(0, 30)))
    return path, f"{around}\n{line}\n{around}\n", value
