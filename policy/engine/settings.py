"""The settings for llama.cpp, and the safer settings to try after native code crashes."""

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
    With 0, the worker chooses the largest number from 2 to 16 with which each sequence can hold the model's longest
    prompt. `threads` is the number of threads, or 0 for `default_threads()`. `micro_batch` is the number of tokens that
    llama.cpp evaluates at a time. If an evaluation is cancelled, its finished micro-batches stay in the cache. With
    `extra_buffers`, ggml repacks weights for this CPU. That is faster, but crashes if the build uses instructions that
    the machine does not allow (AMX under some hypervisors). `embedding` says that the model turns texts into vectors
    and does not complete code. The worker unloads a model after `idle_minutes` without a request, and loads it again
    for the next one; with 0, the model stays loaded. `saved_megabytes` is the maximum size of the saved prompts on disk
    (`worker/saved_state.py`); with 0, none are saved or loaded. `library` is the file of a llama.cpp library, or "" for
    the installed one, see `policy.engine.libraries`.
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
    saved_megabytes: int = 0
    library: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values for the worker's load message."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> EngineSettings:
        """Return the settings with these JSON values."""
        return cls(**{**values, "tensor_split": tuple(values["tensor_split"])})


def fallbacks(settings: EngineSettings, layers: int) -> Iterator[EngineSettings]:
    """Yield the settings to try one after another, until loading and the first evaluation do not crash.

    There are up to four: `settings`; the same without repacked weights (`extra_buffers`); then also with half as many
    layers on the GPU; then with no layers on the GPU. `layers` is the number of layers of the model.
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
    """Return the settings in which `used` differs from `asked`, as text for a message, or "" if they are equal."""
    before, after = asked.to_json(), used.to_json()
    return ", ".join(f"{name} {before[name]} → {after[name]}" for name in before if before[name] != after[name])
