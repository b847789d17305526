"""Read the header of a GGUF file in pure Python, before native code reads the file.

For an unsuitable file, llama.cpp only says "failed to load model", or crashes. This module says *what* is wrong with
the file: it may be an incomplete download, an image projector or an embedding model, for example. The header has at
most a few megabytes, mostly the vocabulary. Reading it takes about 0.2 s for 50,000 tokens. Tensor data are not read.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from policy.errors import ModelInvalid, ModelMissing
from policy.models.shards import shards_of

Scalar = bool | int | float | str
Value = Scalar | tuple[Scalar, ...]

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

# Values per block and bytes per block, by the number of ggml's tensor type, to compute the size of a complete file.
# fmt: off
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17),
}
# fmt: on

_ENCODERS = {
    "bert", "eurobert", "gemma-embedding", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert", "nomic-bert",
    "nomic-bert-moe", "t5encoder",
}  # fmt: skip
_OTHER_KINDS = {
    "clip": "an image projector (mmproj)",
    "whisper": "a speech recognition model",
    "wavtokenizer-dec": "a speech decoder",
    "dream": "a diffusion model",
    "llada": "a diffusion model",
    "t5": "a translation model",
}
_FILE_KINDS = {"mmproj": "an image projector (mmproj)", "adapter": "a LoRA adapter", "imatrix": "an importance matrix"}
_USE = "Use the GGUF of a code model, such as one from the catalog (`repoformer-lsp model pull`)."


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a GGUF file.

    `tensors` is the number of tensors, and `data_end` the minimum size of a complete file in bytes.
    """

    version: int
    tensors: int
    metadata: Mapping[str, Value]
    data_end: int

    @property
    def architecture(self) -> str:
        """`general.architecture`, such as "llama" or "qwen2", or "" if the file does not have this field."""
        return self.text("general.architecture")

    def text(self, key: str) -> str:
        """Return the value of a text field, or "" if the field is absent or not text."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str, default: int = 0) -> int:
        """Return the value of an integer field, or `default` if the field is absent or not an integer."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) else default


def read_header(path: Path) -> Header:
    """Read the header of a GGUF file.

    Raises `ModelMissing` if the file cannot be read, and `ModelInvalid` if it is not a GGUF file or is damaged.
    """
    try:
        with path.open("rb") as file:
            return _Reader(file, path).header()
    except FileNotFoundError as error:
        raise ModelMissing(f"There is no model at {path}. Check the path, or run "
                           "`repoformer-lsp model pull` for a list of models.") from error  # fmt: skip
    except OSError as error:
        raise ModelMissing(f"The model {path} cannot be read: {error.strerror or error}.") from error


def check_generator(path: Path) -> Header:
    """Return the header of a model that can complete code, and reject every other kind of file.

    Raises `ModelMissing` or `ModelInvalid`, with a message that says what the file is and what the user can do.
    """
    header = read_header(path)
    for refusal in (_refuse_kind, _refuse_split, _refuse_incomplete):
        if problem := refusal(path, header):
            raise ModelInvalid(f"{path} {problem}")
    return header


def _refuse_kind(path: Path, header: Header) -> str:
    architecture = header.architecture
    kind = _FILE_KINDS.get(header.text("general.type")) or _OTHER_KINDS.get(architecture)
    if kind:
        return f"is {kind}, not a model that completes code. {_USE}"
    if architecture in _ENCODERS or header.number(f"{architecture}.pooling_type"):
        return f"is an embedding model ({architecture}), which cannot generate text. {_USE}"
    if not architecture:
        return f"does not name its architecture (general.architecture is missing). {_USE}"
    if not header.text("tokenizer.ggml.model"):
        return f"contains no tokenizer. Convert it again with its tokenizer. {_USE}"
    return ""


def _refuse_split(path: Path, header: Header) -> str:
    count = header.number("split.count")
    if count < 2:
        return ""
    number = header.number("split.no")
    if number:
        return f"is part {number + 1} of {count} of a split model. Use the path of the first part instead."
    parts = shards_of(path)
    if len(parts) != count:
        return f"is the first of {count} parts of a split model. Its name must end in -00001-of-{count:05}.gguf."
    absent = [part.name for part in parts if not part.is_file()]
    if absent:
        return f"is the first of {count} parts, and its folder lacks others: {', '.join(absent)}. Download them too."
    return ""


def _refuse_incomplete(path: Path, header: Header) -> str:
    if not header.tensors:
        return f"contains only a vocabulary and no weights. {_USE}"
    size = path.stat().st_size
    if size < header.data_end:
        return f"is incomplete: {size:,} of {header.data_end:,} bytes. Download it again."
    return ""


class _Reader:
    """Reads a header from front to back. Raises `ModelInvalid` if the file is damaged."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._remaining = path.stat().st_size

    def header(self) -> Header:
        magic = self._bytes(4)
        if magic != b"GGUF":
            raise ModelInvalid(f"{self._path} is not a GGUF file (it begins with {magic!r}). {_USE}")
        version = self._integer("I")
        if version not in (2, 3):
            if version & 0xFFFF == 0:
                raise ModelInvalid(f"{self._path} is a big-endian GGUF file. Use a little-endian one.")
            raise ModelInvalid(f"{self._path} has GGUF version {version}. Only versions 2 and 3 are supported. "
                               "Use a newer conversion of the model.")  # fmt: skip
        tensors = self._integer("Q")
        fields = self._integer("Q")
        metadata = {}
        for _ in range(fields):
            key = self._string()
            metadata[key] = self._value(self._integer("I"))
        ends = [self._tensor_end() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", 32)
        start = _aligned(self._file.tell(), alignment if isinstance(alignment, int) and alignment > 0 else 32)
        return Header(version, tensors, metadata, start + max(ends, default=0))

    def _tensor_end(self) -> int:
        self._string()
        values = 1
        for _ in range(self._integer("I")):
            values *= self._integer("Q")
        per_block, size = _BLOCKS.get(self._integer("I"), (1, 0))  # a tensor of an unknown type counts as empty
        return self._integer("Q") + values // per_block * size

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            inner, count = self._integer("I"), self._integer("Q")
            if inner in _SCALARS:
                return self._numbers(_SCALARS[inner], count)
            if inner == _STRING:
                return tuple(self._string() for _ in range(self._counted(count)))
            raise self._broken()
        if kind not in _SCALARS:
            raise self._broken()
        return self._numbers(_SCALARS[kind], 1)[0]

    def _numbers(self, code: str, count: int) -> tuple[Scalar, ...]:
        data = self._bytes(struct.calcsize(code) * self._counted(count))
        return struct.unpack(f"<{count}{code}", data)

    def _integer(self, code: str) -> int:
        return cast("int", struct.unpack(f"<{code}", self._bytes(struct.calcsize(code)))[0])

    def _string(self) -> str:
        # A vocabulary may contain single bytes of multi-byte characters, which are not valid UTF-8.
        return self._bytes(self._counted(self._integer("Q"))).decode("utf-8", "replace")

    def _counted(self, count: int) -> int:
        # A damaged header may have a count like 2**60. Each element takes at least one byte, so that count is too
        # large.
        if count > self._remaining:
            raise self._broken()
        return count

    def _bytes(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise self._broken()
        self._remaining -= size
        return data

    def _broken(self) -> ModelInvalid:
        at = self._file.tell()
        return ModelInvalid(f"{self._path} is damaged or incomplete (its header ends near byte {at:,}). "
                            "Download it again.")  # fmt: skip


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
