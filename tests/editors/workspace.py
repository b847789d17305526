"""The files that the tests complete in every editor.

The files are small, because the model is small and the tests are about the editor. The code leaves little choice of how
to continue, so that any model completes it. No test asserts more about the text of a completion.
"""

from __future__ import annotations

from pathlib import Path

FILES = {
    "shapes.py": '''\
"""Shapes of garden beds."""


def rectangle_area(width: float, height: float) -> float:
    """The area of a rectangular bed."""
    return width * height


def triangle_area(base: float, height: float) -> float:
    """The area of a triangular bed."""
    return base * height / 2
''',
    "beds.py": "from shapes import rectangle_area\n\nwidth = 3.0\nheight = 4.0\n",
    "arithmetic.py": """\
def add(a, b):
    result = a + b
    return result


def subtract(a, b):
    result = a - b
    return result


""",
    "names.py": 'names = ["one", "two", "three"]\nprint(len())\n',
}

AREA = "area = rectangle_area("  # typed at the end of beds.py; a model continues with the arguments
UNSURE = 'place = "'  # typed at the end of beds.py; any text may follow, so no model gives a text a high probability
MULTIPLY = "def multiply(a, b):"  # typed at the end of arithmetic.py; a model continues with the body

# The limit of a wait. It is long, because the machine may be busy.
SECONDS = 240

# The server's settings in every editor. On a busy machine, several threads would wait for the slowest of them.
SETTINGS = {"patience": 60, "threads": 1, "suggest": "eager"}

MANY = 6000  # files that `fill` adds, so that indexing takes long

# A text for an empty file, with characters for which positions can be wrong: of one to four bytes, of one and two
# UTF-16 units, a tab, and a letter of two code points.
HARD = 'ONE = 1\nTWO = 2\nTHREE = 3\n\tGREETING = "grüße 🌍 e\u0301"; FOUR = '


def fill(root: Path) -> None:
    """Add enough files to see the workspace being indexed."""
    function = "".join(f"def part_{n}(value):\n    return value + {n}\n\n\n" for n in range(40))
    many = root / "many"
    many.mkdir()
    for n in range(MANY):
        (many / f"module_{n}.py").write_text(f"NUMBER = {n}\n\n\n{function}")


def lay_out(root: Path) -> Path:
    """Write the files, and return the folder."""
    root.mkdir(parents=True)
    for name, text in FILES.items():
        (root / name).write_text(text, "utf-8")
    (root / ".git").mkdir()
    return root
