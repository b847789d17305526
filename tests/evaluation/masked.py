"""Create small repositories with blanks, each from one string.

In the string, a line `#- path` begins each file, and `«…»` marks a blank.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from policy.evaluation.table import Row

SHOP = """
#- shop/geometry.py
def area_of(width, height):
    \"\"\"Area of a rectangle.\"\"\"
    return width * height


def ring(outer, inner):
    return area_of(outer, outer) - area_of(inner, inner)
#- shop/order.py
from shop.geometry import area_of


def price_of(order):
    base = 3
    total = «area_of(order.width, order.height)» * base
    return total
"""


def unpack(text: str, folder: Path) -> list[tuple[str, str, str, str]]:
    """Write the files of `text`, without marks, into `folder`. Return (path, prefix, truth, suffix) of each blank."""
    found: list[tuple[str, str, str, str]] = []
    for part in text.lstrip("\n").split("#- ")[1:]:
        path, _, source = part.partition("\n")
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source.replace("«", "").replace("»", ""), "utf-8")
        rest = source
        before = ""
        while "«" in rest:
            left, _, rest = rest.partition("«")
            truth, _, right = rest.partition("»")
            before += left
            found.append((path, before, truth, right.replace("«", "").replace("»", "")))
            before, rest = before + truth, right
    return found


def repoeval_row(blank: tuple[str, str, str, str], repository: str, number: int, **metadata: Any) -> dict[str, Any]:
    """Return a blank in the row format of RepoEval, the data set of the RepoCoder paper."""
    path, prefix, truth, _ = blank
    return {
        "prompt": prefix,
        "metadata": {
            "task_id": f"{repository}/{number}",
            "ground_truth": truth,
            "fpath_tuple": [repository, *path.split("/")],
            "context_start_lineno": 0,
            "line_no": prefix.count("\n"),
            **metadata,
        },
    }


def write_jsonl(file: Path, rows: list[Any]) -> Path:
    """Write one JSON object per line to `file`, and return `file`."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


def row(number: int = 0, **values: Any) -> Row:
    """Return the result of one blank: `values`, and default values for the other fields."""
    default: dict[str, Any] = {
        "id": f"blank {number}", "kind": "line", "variant": "", "repository": "r", "path": "a.py", "language": "python",
        "truth": "x", "without": "y", "with_": "x", "em_without": 0, "em_with": 1, "es_without": 0.0, "es_with": 100.0,
        "f1_without": 0.0, "f1_with": 100.0, "p_cc": None, "cc_is_top": False, "score": 0.5,
        "first_p": 0.5, "first_entropy": 1.0, "second": 0.25, "names": 0, "overlap": 0.5, "match": 3,
        "surprise": 1.0, "worst": 2.0, "chunks": 1, "prompt_tokens": 100, "context_tokens": 50,
        "tokens_without": 5, "tokens_with": 5, "retrieval_ms": 1.0,
    }  # fmt: skip
    return Row(**{**default, **values})
