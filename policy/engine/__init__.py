"""llama.cpp in a process of its own: `Supervisor` keeps one alive, `Engine` is what requests call.

`llama.py` (the binding), `cache.py` and `session.py` run inside the worker (`worker.py`); everything else runs in the
server and never loads native model code.
"""

from policy.engine.client import Engine, Generation, ModelInfo, PromptStats, Reading, Stop, Trial, Tried, Urgency
from policy.engine.settings import EngineSettings
from policy.engine.supervisor import Supervisor

__all__ = [
    "Engine",
    "EngineSettings",
    "Generation",
    "ModelInfo",
    "PromptStats",
    "Reading",
    "Stop",
    "Supervisor",
    "Trial",
    "Tried",
    "Urgency",
]
