"""Which files are private, so that their text must not be sent to another machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer.rules import why_private
from indexer.settings import IndexSettings


@pytest.mark.parametrize(
    ("path", "private"),
    [
        (".env", True),
        (".env.local", True),
        ("deploy/id_rsa", True),
        ("server.pem", True),
        ("credentials.json", True),
        (".aws/config", True),
        ("build/made.py", True),
        ("left/out.py", True),
        (".envrc", True),
        ("prod.auto.tfvars.json", True),
        ("shop-firebase-adminsdk-x1.json", True),
        ("gcp-service-account.json", True),
        ("kubeconfig", True),
        ("ssh_host_rsa_key", True),
        ("local.settings.json", True),
        ("client_secret_123.json", True),
        ("vault-password.txt", True),
        (".vault_pass", True),
        (".my.cnf", True),
        (".s3cfg", True),
        ("passwords.txt", True),
        ("api_keys.txt", True),
        ("apikeys.json", True),
        (".Renviron", True),
        (".token", True),
        ("main.py", False),
        ("src/tokens.py", False),
        ("reset_password.html", False),
        ("passwords.test.ts", False),
        ("design.tokens.css", False),
        ("compass.txt", False),
        ("bin/reset-password", False),
        ("special_tokens.json", False),
        ("environment.yml", False),
        ("README.md", False),
        ("new_file_that_is_not_saved.py", False),
    ],
)
def test_names_and_rules(tmp_path: Path, path: str, private: bool) -> None:
    (tmp_path / ".gitignore").write_text("build/\n")
    reason = why_private(tmp_path / path, [tmp_path], IndexSettings(exclude=("left/",)))
    assert (reason is not None) == private
    outside = why_private(Path("/elsewhere") / path, [], IndexSettings())
    assert (outside is not None) == (private and path.split("/")[0] not in {"build", "left"})


def test_a_link_is_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\n")
    (tmp_path / "settings.py").symlink_to(tmp_path / ".env")
    assert why_private(tmp_path / "settings.py", [tmp_path], IndexSettings()) is not None
