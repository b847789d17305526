"""Quantize a GGUF file. llama.cpp converts the numbers, and this module selects the type of each tensor.

The prebuilt llama.cpp does not have the function `llama_model_quantize`, which does both. Therefore this module has the
rules of llama.cpp's `src/llama-quant.cpp` (b11413), for the file types in `TYPES` and the architectures that
`convert.py` writes. If the library has `llama_model_quantize`, a test compares the results of both byte for byte.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from policy.errors import EngineFailed

from .manifest import TrainingError

if TYPE_CHECKING:
    import gguf
    from numpy.typing import NDArray

# For each file type: its number (`llama_ftype`), and the type of most of its tensors.
FILE_TYPES: Mapping[str, tuple[int, str]] = {
    "Q8_0": (7, "Q8_0"),
    "Q5_K_M": (17, "Q5_K"),
    "Q4_K_M": (15, "Q4_K"),
    "Q4_0": (2, "Q4_0"),
}
TYPES = tuple(FILE_TYPES)
# For each type: the number of weights in a block. The length of a row has to be a multiple of this number.
_BLOCK: Mapping[str, int] = {"Q8_0": 32, "Q5_1": 32, "Q5_0": 32, "Q4_0": 32, "Q6_K": 256, "Q5_K": 256, "Q4_K": 256}
_UNCHANGED = {"position_embd.weight", "token_types.weight"}
# For each type with blocks of 256 weights: the type to use if the length of a row is not a multiple of 256.
_FALLBACK: Mapping[str, str] = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


def quantize(source: Path, target: Path, type_: str) -> None:
    """Write the GGUF `source`, which is in F16 or F32, to `target` in the file type `type_`.

    Raises `TrainingError` if the file cannot be quantized.
    """
    temporary = target.with_suffix(".part")
    try:
        _write(source, temporary, type_)
    except (EngineFailed, TrainingError) as error:
        temporary.unlink(missing_ok=True)
        raise TrainingError(f"{source.name} could not be quantized to {type_}: {error}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(target)


def types_of(names: Iterable[str], columns: Mapping[str, int], type_: str) -> dict[str, str | None]:
    """Return the type of each two-dimensional tensor in a file of the type `type_`, or None for an unchanged type.

    `columns` has the length of the rows of each tensor.
    """
    _number, default = FILE_TYPES[type_]
    names = list(names)
    tied = "output.weight" not in names
    values = [name for name in names if re.search(r"attn_(v|qkv)\.weight", name)]
    downs = [name for name in names if "ffn_down" in name and name.endswith("weight")]
    result: dict[str, str | None] = {}
    for name in names:
        if not name.endswith("weight") or name.endswith("_norm.weight") or name in _UNCHANGED:
            result[name] = None
            continue
        chosen = default
        if name == "output.weight" or (tied and name == "token_embd.weight"):
            chosen = "Q6_K" if default != "Q8_0" and _fits(columns[name], default) else "Q8_0"
        elif type_.endswith("_K_M"):
            for group in (values, downs):
                if name in group and _more_bits(group.index(name), len(group)):
                    chosen = "Q6_K"
        result[name] = _fitting(columns[name], chosen)
    return result


def _more_bits(layer: int, layers: int) -> bool:
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _fits(columns: int, type_: str) -> bool:
    return columns % _BLOCK[type_] == 0


def _fitting(columns: int, type_: str) -> str:
    for candidate in (type_, _FALLBACK.get(type_, type_)):
        if _fits(columns, candidate):
            return candidate
    return "F16"


def _write(source: Path, target: Path, type_: str) -> None:
    import gguf

    from policy.engine.worker import native  # imported only here, because it loads native code

    library = native.load()
    reader = gguf.GGUFReader(source)
    tensors = sorted(reader.tensors, key=lambda tensor: _place(tensor.name))
    wide = {tensor.name: int(tensor.shape[0]) for tensor in tensors if len(tensor.shape) == 2}
    types = types_of(wide, wide, type_)
    writer = gguf.GGUFWriter(target, str(reader.fields["general.architecture"].contents()))
    _copy_metadata(reader, writer, type_)
    planned: list[tuple[gguf.ReaderTensor, gguf.GGMLQuantizationType | None]] = []
    for tensor in tensors:
        if tensor.tensor_type.name not in {"F16", "F32"}:
            raise TrainingError(f"{tensor.name} is {tensor.tensor_type.name} and not F16 or F32")
        type_now = gguf.GGMLQuantizationType[types.get(tensor.name) or tensor.tensor_type.name]
        planned.append((tensor, None if type_now == tensor.tensor_type else type_now))
        _announce(writer, tensor, type_now)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for tensor, chosen in planned:
            data = tensor.data if chosen is None else _quantized(library.quantize, pool, tensor.data, chosen)
            writer.write_tensor_data(data)
    writer.close()


def _place(name: str) -> tuple[int, str]:
    """Return the key by which tensors are sorted into the order in which llama.cpp writes them."""
    layer = re.match(r"blk\.(\d+)\.", name)
    return (int(layer[1]) if layer else -1, name)


def _copy_metadata(reader: gguf.GGUFReader, writer: gguf.GGUFWriter, type_: str) -> None:
    from gguf import GGML_QUANT_VERSION, GGUFValueType

    own = {"general.architecture", "general.quantization_version", "general.file_type"}
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in own:
            inner = field.types[-1] if field.types[0] is GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], inner)
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_file_type(FILE_TYPES[type_][0])


def _announce(writer: gguf.GGUFWriter, tensor: gguf.ReaderTensor, type_: gguf.GGMLQuantizationType) -> None:
    shape = [int(size) for size in reversed(tensor.shape)]
    size = _row_bytes(int(np.prod(shape)), type_)
    writer.add_tensor_info(tensor.name, shape, np.dtype(np.float32), size, raw_dtype=type_)


def _row_bytes(columns: int, type_: gguf.GGMLQuantizationType) -> int:
    from gguf import GGML_QUANT_SIZES

    block, size = GGML_QUANT_SIZES[type_]
    return columns // block * size


def _quantized(
    quantize: Any, pool: ThreadPoolExecutor, data: NDArray[Any], type_: gguf.GGMLQuantizationType
) -> NDArray[np.uint8]:
    """Return `data`, shape (rows, columns), quantized to bytes. Each core converts a part of the rows."""
    size = _row_bytes(data.shape[1], type_)
    parts: Sequence[NDArray[Any]] = np.array_split(data, max(1, min(len(data), 4 * (os.cpu_count() or 1))))
    return np.concatenate(list(pool.map(lambda rows: quantize(rows, int(type_), size), parts)))
