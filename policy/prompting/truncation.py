"""Truncate a file to the text that a prompt can contain, before it is sent to the engine's process.

A prompt contains a few hundred lines at most, however long the file is. The start of L depends on the number of its
first line, modulo the step of the cut. So empty lines replace the text that is left out, few enough that no prompt
contains them.
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
    left = budgets.left * MAX_TOKEN_LENGTH + 1  # one more, so that the prompt builder also reports a cut
    right = budgets.right * MAX_TOKEN_LENGTH + 1
    start = max(0, len(cursor.prefix) - left)
    # A multiple of every step that the prompt builder uses: the step of the budgets, and the powers of two below it.
    grain = math.lcm(budgets.step_lines, 1 << (budgets.step_lines.bit_length() - 1))
    skipped = cursor.prefix.count("\n", 0, start) % grain
    return replace(cursor, prefix="\n" * skipped + cursor.prefix[start:], suffix=cursor.suffix[:right])
