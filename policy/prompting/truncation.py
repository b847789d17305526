"""Truncate a file to the text that a prompt can contain, before the text is sent to the worker process.

A prompt contains a few hundred lines at most, even if the file is long. The beginning of the file cannot simply be
removed, because the prompt builder cuts the text at a line whose number is a multiple of a step (`prompt.left_cut`). So
a few empty lines replace the removed text, and the other lines keep their numbers modulo the step. No prompt contains
these empty lines.
"""

from __future__ import annotations

import math
from dataclasses import replace

from indexer.model import Cursor
from policy.prompting.prompt import MAX_TOKEN_LENGTH, Budgets


def truncate(cursor: Cursor, budgets: Budgets) -> Cursor:
    """Return `cursor` without the text that no prompt of `budgets` contains.

    A prompt builder with these budgets makes the same prompt from the result as from `cursor`.
    """
    left = budgets.left * MAX_TOKEN_LENGTH + 1  # one character more than fits, so that the prompt builder reports a cut
    right = budgets.right * MAX_TOKEN_LENGTH + 1
    start = max(0, len(cursor.prefix) - left)
    # A multiple of every step that the prompt builder may use: the step of the budgets, and the powers of two below it.
    grain = math.lcm(budgets.step_lines, 1 << (budgets.step_lines.bit_length() - 1))
    skipped = cursor.prefix.count("\n", 0, start) % grain
    return replace(cursor, prefix="\n" * skipped + cursor.prefix[start:], suffix=cursor.suffix[:right])
