"""As much of a file as a prompt can be made of.

A prompt reads a few hundred lines at most, however long the file is, so no more than that has to travel to the
engine's process with every keystroke. Where L begins depends on the number of its first line, modulo the grain of the
cut: empty lines stand in for the text that is left out, few enough to be out of reach themselves.
"""

from __future__ import annotations

import math
from dataclasses import replace

from indexer.model import Cursor
from policy.prompting.prompt import LONGEST_TOKEN, Budgets


def within_reach(cursor: Cursor, budgets: Budgets) -> Cursor:
    """`cursor` without the text that no prompt of these budgets reaches: every builder makes the same prompt of it."""
    left = budgets.left * LONGEST_TOKEN + 1  # one more, so that what is cut here counts as cut there
    right = budgets.right * LONGEST_TOKEN + 1
    start = max(0, len(cursor.prefix) - left)
    # Every step that a cut is made in divides this: the one of the budgets, and the powers of two below it.
    grain = math.lcm(budgets.step_lines, 1 << (budgets.step_lines.bit_length() - 1))
    skipped = cursor.prefix.count("\n", 0, start) % grain
    return replace(cursor, prefix="\n" * skipped + cursor.prefix[start:], suffix=cursor.suffix[:right])
