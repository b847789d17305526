"""README.md says what the code says."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

from lsp_server.settings import DEFAULTS, json_name

README = (Path(__file__).resolve().parent.parent / "README.md").read_text("utf-8")


def test_the_table_of_settings_is_that_of_the_server() -> None:
    rows = []
    for each in fields(DEFAULTS):
        default = json.dumps(getattr(DEFAULTS, each.name))
        rows.append(f"| `{json_name(each)}` | `{default}` | {each.metadata['description']} |")
    shown = re.findall(r"^\| `\w+` \| `.+$", README, re.MULTILINE)
    assert shown == rows, "the rows should be:\n" + "\n".join(rows)
