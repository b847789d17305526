"""The files that every editor completes in, with what the interim model writes there.

Small on purpose: the model is small, the machine is shared, and what is tested is the editor. Where a completion's
text matters, the code around it leaves hardly another choice.
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
    "arithmetic.py": ("def add(a, b):\n    return a + b\n\n\ndef subtract(a, b):\n    return a - b\n\n\n"),
    "names.py": 'names = ["one", "two", "three"]\nprint(len())\n',
}

AREA = "area = rectangle_area("  # typed at the end of beds.py; the model goes on with the arguments
MULTIPLY = "def multiply(a, b):"  # typed at the end of arithmetic.py; the model writes the body

# What can go wrong before a cursor: characters of one to four bytes, of one and two UTF-16 units, a tab, a letter that
# is two code points. Typed into an empty file.
HARD = 'ONE = 1\nTWO = 2\nTHREE = 3\n\tGREETING = "grüße 🌍 e\u0301"; FOUR = '


def lay_out(root: Path) -> Path:
    """Write the files; returns the folder."""
    root.mkdir(parents=True)
    for name, text in FILES.items():
        (root / name).write_text(text, "utf-8")
    (root / ".git").mkdir()
    return root
