"""What a person can set about llama.cpp, and how to step back from it when native code crashes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import psutil

KvCacheType = Literal["f32", "f16", "q8_0", "q4_0"]
FlashAttention = Literal["auto", "on", "off"]
ALL_LAYERS = -1


def default_threads() -> int:
    """Physical cores, less one for the editor where there are more than two."""
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 2
    return cores - 1 if cores > 2 else cores


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Parameters of the model and its context.

    `gpu_layers` counts layers on the GPU, -1 is all of them; builds without GPU support ignore it. `context_size` is
    the number of KV cache cells, of which `sequences` get an equal share each: 0 makes as many as can hold the longest
    prompt of the model, 16 at most and 2 at least. `threads` 0 chooses by the machine. `micro_batch` is how many tokens
    are evaluated between two looks at the clock: cancelling a prefill keeps the finished ones.
    `extra_buffers` lets ggml repack weights for this CPU, which is faster, and crashes where the build assumes
    instructions that the machine does not allow (AMX under some hypervisors).
    `embedding` is for a model that turns texts into vectors instead of completing code.
    A model that was not used for `idle_minutes` is unloaded until the next request; 0 keeps it loaded.
    `library` is the file of a llama.cpp library; "" uses the one that is installed, see `policy.engine.libraries`.
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
        """Plain values for the worker's load message."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> EngineSettings:
        """The inverse of `to_json`."""
        return cls(**{**values, "tensor_split": tuple(values["tensor_split"])})


def fallbacks(settings: EngineSettings, layers: int) -> Iterator[EngineSettings]:
    """Yield the settings to try one after another when loading or the first decode crashes, `settings` first.

    Without repacked weights, then with half of the model's `layers` on the GPU, then on the CPU alone.
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
    """What `used` changes about `asked`, for the one message that says so; empty if nothing."""
    before, after = asked.to_json(), used.to_json()
    return ", ".join(f"{name} {before[name]} → {after[name]}" for name in before if before[name] != after[name])
