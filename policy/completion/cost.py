"""What a change between the branches of a document costs: reading a prompt that is not in the KV cache.

After a keystroke, the prompt of the branch that was used last lacks only a few tokens. The other branch may lack
hundreds, which takes a second with a small model and several seconds with a larger one. So a decision considers which
prompts are in the cache, and idle work reads the second branch in advance only on a machine that is fast enough.
"""

from __future__ import annotations

import math
from dataclasses import replace

from policy.engine.client import Engine
from policy.engine.messages import Missing
from policy.gating.decision import Decision, in_favor

FEW_TOKENS = 64  # a prompt counts as cached if at most this number of its tokens have to be read
# The log-odds by which the threshold moves. With the gate of Qwen2.5-Coder 0.5B at 466 places in 16 Python packages,
# 49% of the probabilities exceed the threshold. 25% exceed it by `SWITCHING`, and 11% are below it by at least
# `SWITCHING`. 39% exceed it by `READING`.
SWITCHING = 0.3  # in favor of a branch that is in the cache
READING = 0.1  # if no branch is in the cache: against the chunks, which take time to read
BOTH_SECONDS = 2.5  # both branches are read in advance if one prompt takes at most this long
WAIT_SECONDS = 1.0  # if the chunks take longer to read than this, the prompt without chunks is read in advance first


def considering_cache(decision: Decision, missing: Missing, *, fixed: bool) -> Decision:
    """Return `decision`, adapted to the tokens that are not in the KV cache.

    `missing` has first the prompt without chunks, and then the prompt with them.

    If only one prompt is cached, the threshold moves in its favor. If none is cached, the threshold is a little higher.
    A threshold that is `fixed` by the user does not move. If only the prompt without chunks is cached, or at least a
    part of it, a retrieval is deferred: this completion does without chunks, and idle work reads them.
    """
    plain, retrieved = missing.tokens
    # With an empty cache, the prompts differ only by the chunks.
    partly_cached = retrieved - plain > missing.context_tokens[1] + FEW_TOKENS
    if retrieved > FEW_TOKENS and (plain <= FEW_TOKENS or partly_cached):
        decision = decision if fixed else in_favor(decision, -SWITCHING)
        return replace(decision, retrieve=False, deferred=decision.retrieve)
    if min(plain, retrieved) > FEW_TOKENS:
        return with_empty_cache(decision, fixed=fixed)
    if retrieved <= FEW_TOKENS < plain and not fixed:
        return in_favor(decision, SWITCHING)
    return decision


def with_empty_cache(decision: Decision, *, fixed: bool) -> Decision:
    """Return `decision` for a place where no prompt is in the KV cache. `fixed` is as in `considering_cache`."""
    return decision if fixed else in_favor(decision, -READING)


async def token_seconds(engine: Engine) -> float:
    """Return the time in which this machine reads a token. It is infinite before the engine has read anything."""
    work = await engine.work()
    return work.read_seconds / work.read_tokens if work.read_tokens else math.inf


async def reads_fast(engine: Engine) -> bool:
    """Return whether this machine reads a whole prompt in at most `BOTH_SECONDS`."""
    return await token_seconds(engine) * engine.budgets.tokens <= BOTH_SECONDS


async def waits_for_chunks(engine: Engine) -> bool:
    """Return whether this machine reads the chunks of a prompt in more than `WAIT_SECONDS`."""
    return await token_seconds(engine) * engine.budgets.context > WAIT_SECONDS
