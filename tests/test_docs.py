"""The page of settings matches the code, and every link from a page to a file has its file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.settings_page import PAGE, page

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "policy" / "model" / "README.md"])
LINK = re.compile(r"\]\(([^)#\s]+)")


def test_the_settings_page_is_that_of_the_code() -> None:
    assert PAGE.read_text("utf-8") == page(), "docs/settings.md is out of date: run `python -m tools.settings_page`"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files(path: Path) -> None:
    targets = [target for target in LINK.findall(path.read_text("utf-8")) if "://" not in target]
    missing = [target for target in targets if not (path.parent / target).exists()]
    assert not missing
