"""The settings for llama.cpp, and safer settings for when native code crashes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import psutil

KvCacheType = Literal["f32", "f16", "q8_0", "q4_0"]
FlashAttention = Literal["auto", "on", "off"]
ALL_LAYERS = -1


def default_threads() -> int:
    """Return the number of physical cores, less one for the editor if there are more than two."""
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 2
    return cores - 1 if cores > 2 else cores


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Parameters of the model and its context.

    `gpu_layers` is the number of layers on the GPU, or -1 for all; builds without GPU support ignore it. `context_size`
    is the number of cells in the KV cache. `sequences` is the number of sequences, which share these cells equally.
    With 0, there are as many, from 2 to 16, as can each hold the model's longest prompt. `threads` is the number of
    threads. With 0, it is `default_threads()`. `micro_batch` is how many tokens are evaluated between two checks for a
    cancellation; finished micro-batches stay in the cache. With `extra_buffers`, ggml repacks weights for this CPU.
    That is faster, but crashes if the build assumes instructions that the machine does not allow (AMX under some
    hypervisors). `embedding` is for a model that turns texts into vectors and does not complete code. A model that was
    not used for `idle_minutes` is unloaded until the next request; with 0 it stays loaded. `library` is the file of a
    llama.cpp library, or "" for the installed one, see `policy.engine.libraries`.
    """

    gpu_layers: int = ALL_LAYERS
    main_gpu: int = 0
    tensor_split: tuple[float, ...] = ()
    flash_attention: FlashAttention = "auto"
    kv_cache_type: KvCacheType = "f16"
    threads: int = 0
    context_size: int = 8192
    micro_batch: int = 64
    sequences: int = 0
    extra_buffers: bool = True
    embedding: bool = False
    idle_minutes: float = 30.0
    library: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values for the worker's load message."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> EngineSettings:
        """Return the settings with these JSON values."""
        return cls(**{**values, "tensor_split": tuple(values["tensor_split"])})


def fallbacks(settings: EngineSettings, layers: int) -> Iterator[EngineSettings]:
    """Yield the settings to try one after another if loading or the first evaluation crashes. The first are `settings`.

    The next ones are without repacked weights, then with half of the model's `layers` on the GPU, then without a GPU.
    """
    yield settings
    if settings.extra_buffers:
        settings = replace(settings, extra_buffers=False)
        yield settings
    if settings.gpu_layers != 0:
        on_gpu = layers if settings.gpu_layers < 0 else min(settings.gpu_layers, layers)
        if on_gpu > 1:
            yield replace(settings, gpu_layers=on_gpu // 2)
        yield replace(settings, gpu_layers=0)


def difference(asked: EngineSettings, used: EngineSettings) -> str:
    """Return which settings `used` changes in `asked`, as text for a message. It is empty if there is no change."""
    before, after = asked.to_json(), used.to_json()
    return ", ".join(f"{name} {before[name]} → {after[name]}" for name in before if before[name] != after[name])
