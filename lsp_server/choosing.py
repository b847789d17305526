"""Choose the model for the setting `model: "auto"`: the best installed model that is fast enough.

A model is measured the first time that it is used. If this machine cannot run a model (the model is too large, or
llama.cpp refuses it), the next smaller model is used, and the user gets a message. The last candidate, usually the
built-in model, is used even if it is slow.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from policy.engine.settings import EngineSettings
from policy.engine.speed import LIMIT_SECONDS, Speed, Speeds
from policy.engine.supervisor import Supervisor
from policy.errors import EngineError, ModelError, Preempted, RepoformerError
from policy.models import choice
from policy.models.locate import ModelFile, resolve

log = logging.getLogger(__name__)

AUTO = ("", "auto")
_TRIES = 3  # maximum number of attempts to measure a speed; every request of a client interrupts a measurement
_PAUSES = (0.0, 60.0, 300.0, 900.0, 1800.0)  # seconds before each attempt of `better` to measure a speed


async def choose(
    make: Callable[[ModelFile], Awaitable[Supervisor]],
    speeds: Speeds,
    settings: EngineSettings,
    tell: Callable[[str], None],
) -> Supervisor:
    """Return the supervisor of the model to use. `make` makes the supervisor of a model.

    `tell` shows a message to the user. If `make` fails for the last candidate, its error is raised.
    """
    found = choice.candidates(speeds, settings)
    for candidate in found[:-1]:
        if not candidate.fast_enough:
            continue
        name = candidate.model.path.name
        try:
            supervisor = await make(candidate.model)
        except ModelError as error:
            tell(f"{error} A smaller model is used instead.")
            continue
        try:
            await supervisor.engine()
            if (speed := candidate.speed) is None:
                speed = await measure(supervisor, speeds, settings)
                if speed is not None and not speed.too_slow:
                    supervisor = await _with_short_prompts(supervisor, candidate.model, make)
        except (ModelError, EngineError) as error:
            await supervisor.close()
            tell(f"{error} A smaller model is used instead.")
            continue
        except BaseException:
            await supervisor.close()
            raise
        if speed is None or not speed.too_slow:
            return supervisor
        log.info("%s is too slow on this machine: a line of 12 tokens takes %.2f s, more than %.1f s", name,
                 speed.line_seconds, LIMIT_SECONDS)  # fmt: skip
        await supervisor.close()
    return await make(found[-1].model if found else resolve())


async def _with_short_prompts(
    supervisor: Supervisor, model: ModelFile, make: Callable[[ModelFile], Awaitable[Supervisor]]
) -> Supervisor:
    """Return `supervisor`, or one with other short prompts, which `make` chooses now that the speed is known."""
    again = await make(model)
    used, unused = (supervisor, again) if again.parts == supervisor.parts else (again, supervisor)
    await unused.close()
    return used


async def measure(supervisor: Supervisor, speeds: Speeds, settings: EngineSettings) -> Speed | None:
    """Measure and store the speed of an engine's model. Return None if requests interrupt every attempt."""
    engine = await supervisor.engine()
    for _ in range(_TRIES):
        try:
            speed = await engine.measure()
        except Preempted:
            continue
        speeds.remember(supervisor.model, speed, settings)
        log.info("%s: %s", supervisor.model.name, choice.describe(supervisor.model, speed))
        return speed
    return None


async def better(supervisor: Supervisor, speeds: Speeds, settings: EngineSettings) -> choice.Better | None:
    """Return a model to offer to the user, or None.

    The offered model is larger than the model in use, not installed, and expected to be fast enough. Its expected speed
    is computed from the speed of the model in use. If that speed is unknown, it is measured. Because the machine may be
    busy, for example while the workspace is indexed, the function tries this for up to an hour. If no measurement is
    possible, it returns None.
    """
    speed = speeds.of(supervisor.model, settings)
    for seconds in _PAUSES:
        if speed is not None and speed.undisturbed:
            break
        await asyncio.sleep(seconds)
        try:
            speed = await measure(supervisor, speeds, settings)
        except RepoformerError as error:
            log.info("could not measure %s: %s", supervisor.model.name, error)
            return None
    found = choice.find_better(supervisor.model, speed) if speed is not None and speed.undisturbed else None
    return found if found and found.speed.worth_offering else None
