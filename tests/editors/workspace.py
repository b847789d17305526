"""The workspace that the tests open in every editor.

Its files are small, and only one continuation of the code is plausible, so that even a small model completes it. The
tests are about the editor, so no test asserts which text the model generates.
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

# Texts that the tests type at the end of a file.
AREA = "area = rectangle_area("  # in beds.py, where a model generates the arguments
UNSURE = 'place = "'  # in beds.py, where any name could follow, so each text has a low probability
MULTIPLY = "def multiply(a, b):"  # in arithmetic.py, where a model generates the body

# The time limit of a wait. It is long, because the machine may be busy.
SECONDS = 240

# The server's settings in every editor. `threads` is 1, because on a busy machine, several threads would wait for the
# slowest of them.
SETTINGS = {"patience": 60, "threads": 1, "suggest": "eager"}

MANY = 6000  # the number of files that `fill` adds

# A text that is typed into an empty file to test positions. It has characters of one to four bytes in UTF-8, and of one
# and two units in UTF-16, a tab, and a letter that consists of two code points.
HARD = 'ONE = 1\nTWO = 2\nTHREE = 3\n\tGREETING = "grüße 🌍 e\u0301"; FOUR = '


def fill(root: Path) -> None:
    """Add enough files that a test can see the workspace while it is indexed."""
    function = "".join(f"def part_{n}(value):\n    return value + {n}\n\n\n" for n in range(40))
    many = root / "many"
    many.mkdir()
    for n in range(MANY):
        (many / f"module_{n}.py").write_text(f"NUMBER = {n}\n\n\n{function}")


def lay_out(root: Path) -> Path:
    """Write `FILES` and an empty `.git` folder into the new folder `root`, and return the folder."""
    root.mkdir(parents=True)
    for name, text in FILES.items():
        (root / name).write_text(text, "utf-8")
    (root / ".git").mkdir()
    return root
