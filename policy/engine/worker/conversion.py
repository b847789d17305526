"""Convert the feed-forward weights of a model to Q4_0, a number format that llama.cpp evaluates faster on a CPU.

The official file of Qwen2.5-Coder 0.5B has most of these weights in Q5_0, because its rows are no multiple of 256, and
ggml has no fast kernel for Q5_0. The converted model reads and generates faster, and its texts are almost as good
(`docs/experiments.md`, entry 44). All other weights and the metadata stay as they are. Only models whose card has the
key `CONVERTED` are converted, because each model has to be measured.

The converted copy is in the user's cache. It is made when the model is loaded for the first time, which takes seconds.
If it cannot be made, the original file is used.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import platformdirs

from policy.engine.worker import capi
from policy.errors import EngineFailed
from policy.models.card import CONVERTED, metadata_of, probe_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from policy.engine.worker.native import Native

_VERSION = 1  # increase this number if the conversion changes
_FEED_FORWARD = re.compile(r"blk\.\d+\.ffn_(gate|up|down)\.weight")
_SPARE_BYTES = 64 << 20  # disk space that a conversion leaves free
_LONGEST_SECONDS = 600  # an older temporary file is left over from a process that was killed
_VALUES, _BYTES = 32, 18  # values and bytes of a block of Q4_0

# The types that are converted: ggml's number of the type, the values and the bytes of a block, and ggml's function that
# dequantizes `count` values: `void f(const void * blocks, float * values, int64_t count)`.
_SOURCES = {
    6: (32, 22, "dequantize_row_q5_0"),
    8: (32, 34, "dequantize_row_q8_0"),
    12: (256, 144, "dequantize_row_q4_K"),
    14: (256, 210, "dequantize_row_q6_K"),
}


class _InitParams(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


# Functions of ggml's C API for GGUF files (`gguf.h`): the type of the result, and the types of the parameters.
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "gguf_init_from_file": (ctypes.c_void_p, [ctypes.c_char_p, _InitParams]),
    "gguf_free": (None, [ctypes.c_void_p]),
    "gguf_get_n_tensors": (ctypes.c_int64, [ctypes.c_void_p]),
    "gguf_get_tensor_name": (ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_int64]),
    "gguf_get_tensor_type": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int64]),
    "gguf_get_tensor_size": (ctypes.c_size_t, [ctypes.c_void_p, ctypes.c_int64]),
    "gguf_get_tensor_offset": (ctypes.c_size_t, [ctypes.c_void_p, ctypes.c_int64]),
    "gguf_get_data_offset": (ctypes.c_size_t, [ctypes.c_void_p]),
    "gguf_set_tensor_type": (None, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]),
    "gguf_write_to_file": (ctypes.c_bool, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_bool]),
}
_DEQUANTIZE = (None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64])


@dataclass(frozen=True, slots=True, eq=False)
class _Tensor:
    """A tensor of a GGUF file: its number and name, ggml's number of its type, and its bytes."""

    number: int
    name: bytes
    type: int
    blocks: NDArray[np.uint8]


def fast_copy(model: Path, native: Native, log: Callable[[str], None], folder: Path | None = None) -> Path:
    """Return the converted copy of the file `model`, which is made if it does not exist, or `model` itself.

    Return `model` if its card does not say that it should be converted, or if the copy cannot be made. In this case,
    `log` gets the reason.
    """
    if metadata_of(model).get(CONVERTED) != "Q4_0":
        return model
    folder = folder or Path(platformdirs.user_cache_dir("repoformer-lsp", appauthor=False), "converted")
    try:
        copy = folder / f"{model.stem}-{probe_of(model)[:16]}-{_VERSION}.gguf"
        if copy.is_file():
            return copy
        started = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < model.stat().st_size + _SPARE_BYTES:
            raise OSError("too little disk space")
        for old in folder.glob(f"{model.stem}-*"):  # copies of other versions, and files of interrupted conversions
            if old.suffix == ".gguf" or time.time() - old.stat().st_mtime > _LONGEST_SECONDS:
                old.unlink(missing_ok=True)
        written = copy.with_suffix(f".{os.getpid()}.part")
        try:
            convert(model, written, native)
            written.replace(copy)
        finally:
            with contextlib.suppress(OSError):
                written.unlink()
    except (OSError, EngineFailed) as error:
        log(f"{model.name} is used as it is, which is slower, because its copy for this CPU cannot be made: {error}")
        return model
    log(f"made a copy of {model.name} that this CPU evaluates faster, in {time.monotonic() - started:.1f} s: {copy}")
    return copy


def convert(source: Path, target: Path, native: Native) -> None:
    """Write the GGUF file `source` to `target`, with its feed-forward weights in Q4_0.

    Raises `OSError` if a file cannot be read or written, and `EngineFailed` if `source` is not a GGUF file or the
    library lacks a function.
    """
    call = {name: native.from_ggml(name, *types) for name, types in _FUNCTIONS.items()}
    data = np.memmap(source, np.uint8, mode="r")
    header = call["gguf_init_from_file"](str(source).encode(), _InitParams(True, None))
    if not header:
        raise EngineFailed(f"{source} is not a GGUF file that ggml can read")
    try:
        start = call["gguf_get_data_offset"](header)
        tensors = []
        for number in range(call["gguf_get_n_tensors"](header)):
            offset = start + call["gguf_get_tensor_offset"](header, number)
            blocks = data[offset : offset + call["gguf_get_tensor_size"](header, number)]
            type_ = call["gguf_get_tensor_type"](header, number)
            tensors.append(_Tensor(number, call["gguf_get_tensor_name"](header, number), type_, blocks))
        slow = [each for each in tensors if each.type in _SOURCES and _FEED_FORWARD.fullmatch(each.name.decode())]
        with ThreadPoolExecutor(os.cpu_count()) as threads:  # ggml's functions run without Python's lock
            converted = dict(zip(slow, threads.map(partial(_as_q4_0, native), slow), strict=True))
        for tensor in slow:
            call["gguf_set_tensor_type"](header, tensor.name, capi.GGML_TYPE_Q4_0)
        if not call["gguf_write_to_file"](header, str(target).encode(), True):  # only what comes before the weights
            raise OSError(f"{target} cannot be written")
        with target.open("r+b") as file:
            start = file.seek(0, os.SEEK_END)
            for tensor in tensors:
                file.seek(start + call["gguf_get_tensor_offset"](header, tensor.number))
                file.write(converted.get(tensor, tensor.blocks).data)
            file.flush()
            os.fsync(file.fileno())
    finally:
        call["gguf_free"](header)


def _as_q4_0(native: Native, tensor: _Tensor) -> NDArray[np.uint8]:
    """Return the bytes of a tensor in Q4_0. Its type must be one of `_SOURCES`."""
    values, size, function = _SOURCES[tensor.type]
    count = len(tensor.blocks) // size * values
    weights = np.empty((1, count), np.float32)
    native.from_ggml(function, *_DEQUANTIZE)(tensor.blocks.ctypes.data, weights.ctypes.data, count)
    return native.quantize(weights, capi.GGML_TYPE_Q4_0, count // _VALUES * _BYTES).reshape(-1)
