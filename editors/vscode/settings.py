"""Write the server's settings into this extension's settings page. Use: `python settings.py [--check]`.

`lsp_server.settings` defines the server's settings. The page also has two settings of the extension.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from lsp_server.settings import json_schema

MANIFEST = Path(__file__).with_name("package.json")
OWN: dict[str, dict[str, Any]] = {
    "repoformer.server.command": {
        "type": "array",
        "items": {"type": "string"},
        "default": [],
        "scope": "machine-overridable",
        "markdownDescription": "How to start the server: the program and its arguments. Empty: the server that this "
        "extension has installed, else `repoformer-lsp` on the `PATH`.",
    },
    "repoformer.server.package": {
        "type": "string",
        "default": "repoformer-lsp",
        "scope": "machine",
        "markdownDescription": "What *Install the Server and a Model* installs: the name of a package, with or without "
        "a version, a wheel, an address, or the folder of a clone.",
    },
}


def properties() -> dict[str, dict[str, Any]]:
    """Return all settings of the page, in the order in which VS Code shows them."""
    every = {**json_schema(), **OWN}
    return {name: {**schema, "order": place} for place, (name, schema) in enumerate(every.items())}


def main() -> int:
    """Write the manifest. With `--check`, only compare it with the code: return 1 if it differs."""
    manifest = json.loads(MANIFEST.read_text("utf-8"))
    manifest["contributes"]["configuration"]["properties"] = properties()
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    if "--check" in sys.argv:
        return 0 if json.loads(MANIFEST.read_text("utf-8")) == manifest else 1
    MANIFEST.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
