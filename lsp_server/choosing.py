"""The setting `model: "auto"`: start the best installed model that is quick enough here, measured the first time.

A model that this machine cannot run, because it is too large or llama.cpp refuses it, gives way to the next smaller
one, and the person is told. The last candidate, usually the model that ships, is used whatever it measures.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from policy.engine.settings import EngineSettings
from policy.engine.speed import LIMIT_SECONDS, Speed, Speeds
from policy.engine.supervisor import Supervisor
from policy.errors import EngineError, GaveWay, ModelError, RepoformerError
from policy.models import choice
from policy.models.locate import ModelFile, resolve

log = logging.getLogger(__name__)

AUTO = ("", "auto")
_TRIES = 3  # of a measurement, which gives way to every request
_PAUSES = (0.0, 60.0, 300.0, 900.0, 1800.0)  # seconds before each try to measure on a machine that has no time for it


async def choose(
    make: Callable[[ModelFile], Awaitable[Supervisor]],
    speeds: Speeds,
    settings: EngineSettings,
    tell: Callable[[str], None],
) -> Supervisor:
    """The engine of the model to use, made by `make`. Raises what `make` does for the last candidate."""
    found = choice.candidates(speeds, settings)
    for candidate in found[:-1]:
        if not candidate.fits:
            continue
        name = candidate.model.path.name
        try:
            supervisor = await make(candidate.model)
        except ModelError as error:
            tell(f"{error} A smaller model is used in its place.")
            continue
        try:
            await supervisor.engine()
            speed = candidate.speed or await measure(supervisor, speeds, settings)
        except (ModelError, EngineError) as error:
            await supervisor.close()
            tell(f"{error} A smaller model is used in its place.")
            continue
        except BaseException:
            await supervisor.close()
            raise
        if speed is None or speed.will_do or not speed.undisturbed:
            return supervisor
        log.info("%s is too slow here: a line of 12 tokens takes %.2f s, more than %.1f s", name, speed.line_seconds,
                 LIMIT_SECONDS)  # fmt: skip
        await supervisor.close()
    return await make(found[-1].model if found else resolve())


async def measure(supervisor: Supervisor, speeds: Speeds, settings: EngineSettings) -> Speed | None:
    """The speed of an engine's model, remembered; None where requests leave no time to measure it."""
    engine = await supervisor.engine()
    for _ in range(_TRIES):
        try:
            speed = await engine.measure()
        except GaveWay:
            continue
        speeds.remember(supervisor.model, speed, settings)
        log.info("%s: %s", supervisor.model.name, choice.describe(supervisor.model, speed))
        return speed
    return None


async def better(supervisor: Supervisor, speeds: Speeds, settings: EngineSettings) -> choice.Better | None:
    """The model to offer: larger than the one in use, not installed, and quick enough by what that one measures.

    Waits until the machine has time to measure, up to an hour: it is busy while the workspace is indexed.
    Raises nothing: an offer that cannot be made is not made.
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
    return found if found and found.speed.will_do else None
