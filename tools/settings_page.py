"""Write docs/settings.md from the settings in the code. Usage: `python -m tools.settings_page [--check]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lsp_server.settings import json_schema

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"
HEAD = """# Settings

The server reads the section `repoformer` from `initializationOptions`, from `workspace/configuration`, and from
`workspace/didChangeConfiguration`. It reports a wrong value once and uses the default of that setting.

`python -m tools.settings_page` writes this page from `lsp_server/settings.py`.

| setting | default | description |
| --- | --- | --- |
"""


def page() -> str:
    """Return the text of the page, which has a table with a row for each setting, in the order of the code."""
    rows = [
        f"| `{name.removeprefix('repoformer.')}` | `{json.dumps(row['default'])}` | {row['markdownDescription']} |\n"
        for name, row in json_schema().items()
    ]
    return HEAD + "".join(rows)


def main() -> int:
    """Write the page. With `--check`, write nothing, and return 1 if the page does not match the code."""
    if "--check" in sys.argv:
        return int(PAGE.read_text("utf-8") != page())
    PAGE.write_text(page(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
