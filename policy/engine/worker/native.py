"""Load a llama.cpp library, and check that it has the same definitions of structs as `capi.py`.

If the definitions differed, C would read fields from wrong offsets without an error. So a library is used only if
`capi.LAYOUTS` has its version, and if the structs that the library returns agree with the definitions: every field has
the expected default value, and, on x86-64, the library writes exactly the bytes of the fields.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from policy.engine import cpu
from policy.engine.libraries import COMPILE, Candidate, candidates
from policy.engine.worker import capi
from policy.errors import EngineFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ELF64 = b"\x7fELF\x02\x01"  # the beginning of an ELF file for a 64-bit little-endian CPU
_ROOM = 1024  # bytes; larger than the structs of all builds, so that no function writes beyond the buffer
_SUPPORTED = " or ".join(f"{layout.version} (b{layout.build})" for layout in capi.LAYOUTS)
_COMPILE_HERE = f"To compile a library for this system, run `{COMPILE}` in a clone of the repository"
_loaded: dict[str, Native] = {}


class Native:
    """A loaded library. It has the functions of `capi.FUNCTIONS` as attributes, with their names in C.

    `layout` has the classes of the structs to pass to these functions. `skipped` says why the libraries that come
    before this one in the list of candidates are not used.
    """

    def __init__(self, candidate: Candidate) -> None:
        """Load the library. Raises `EngineFailed` if it cannot be used here."""
        if lacking := cpu.missing(candidate.needs):
            raise EngineFailed(
                f"this CPU has no {', '.join(map(str.upper, lacking))}, which the prebuilt llama.cpp needs. To compile "
                f"one for this CPU, run `{COMPILE}` in a clone of the repository (needs a C++ compiler and CMake)"
            )
        self.candidate = candidate
        self.skipped: list[str] = []
        library = _open(candidate)
        self.version = _version(library, candidate)
        self.layout = _layout(self.version, candidate)
        self._bind(library)
        for complaint in self._disagreements(library):
            raise EngineFailed(
                f"{candidate} says that it is llama.cpp {self.version}, but has other structs ({complaint}). Use a "
                f"library of llama.cpp {_SUPPORTED}"
            )

    def quantize(self, rows: NDArray[np.float32], type_: int, row_bytes: int) -> NDArray[np.uint8]:
        """Quantize weights, shape (rows, columns), to `type_` (`ggml_type`). Return bytes, shape (rows, `row_bytes`).

        Raises `EngineFailed` if the quantized rows do not have `row_bytes` bytes each.
        """
        rows = np.ascontiguousarray(rows, np.float32)
        result = np.empty((len(rows), row_bytes), np.uint8)
        written = self._quantize_chunk(type_, rows.ctypes.data, result.ctypes.data, 0, *rows.shape, None)
        if written != result.nbytes:
            raise EngineFailed(f"llama.cpp wrote {written} bytes instead of {result.nbytes}")
        return result

    def __getattr__(self, name: str) -> Any:
        # This method is only for type checkers, which cannot see the attributes that `_bind` sets.
        raise AttributeError(name)

    @property
    def build(self) -> str:
        """The llama.cpp build whose definitions of structs are used, such as "b11413"."""
        return f"b{self.layout.build}"

    def _bind(self, library: ctypes.CDLL) -> None:
        structs = {name: getattr(self.layout, name.removeprefix("llama_")) for name in _structs()}
        for name, (result, parameters) in capi.FUNCTIONS.items():
            try:
                function = library[name]
            except AttributeError:
                raise EngineFailed(f"{self.candidate} has no `{name}`. Use another build of llama.cpp") from None
            function.restype = structs.get(result, result)
            function.argtypes = [structs.get(each, each) for each in parameters]
            setattr(self, name, function)
        self._quantize_chunk = _from_ggml(library, self.candidate, "ggml_quantize_chunk")
        self._quantize_chunk.restype = ctypes.c_size_t
        self._quantize_chunk.argtypes = [
            ctypes.c_int,
            *[ctypes.c_void_p] * 2,
            *[ctypes.c_int64] * 3,
            ctypes.c_void_p,
        ]

    def _disagreements(self, library: ctypes.CDLL) -> Iterator[str]:
        """Yield each difference between the library and the layout, as text."""
        for name in capi.DEFAULTS:
            struct = getattr(self.layout, name.removeprefix("llama_"))
            function = f"{name.removesuffix('_params')}_default_params"
            # `_size` works only on x86-64, where the caller passes the address of a returned struct as first argument.
            if cpu.machine() in cpu.X86_64 and (complaint := _size(library, function, struct)):
                yield f"`{name}`: {complaint}"
            values = _returned(library, function, struct)
            for field, _type in struct._fields_:
                value, expected = getattr(values, field) or 0, capi.DEFAULTS[name].get(field, 0)
                if value != expected:
                    yield f"`{name}.{field}` is {value} by default and not {expected}"
        batch = self.llama_batch_init(1, 0, 1)
        arrays = [batch.token, batch.pos, batch.n_seq_id, batch.seq_id, batch.logits]
        if batch.n_tokens or batch.embd or not all(arrays) or not batch.seq_id[0] or batch.seq_id[1]:
            yield "`llama_batch` does not contain the right arrays"
        else:
            self.llama_batch_free(batch)


def load(setting: str = "") -> Native:
    """Return the first library that can be used. `setting` is the value of the setting `llamaLibrary`.

    The library is loaded once per process. Raises `EngineFailed` if no library can be used, with the reason for each.
    """
    if (native := _loaded.get(setting)) is None:
        skipped: list[str] = []
        for candidate in candidates(setting):
            try:
                native = _loaded[setting] = Native(candidate)
            except EngineFailed as error:
                skipped.append(str(error))
            else:
                native.skipped = skipped
                return native
        raise EngineFailed("; ".join(skipped))
    return native


def _structs() -> set[str]:
    return {"llama_batch", *capi.DEFAULTS}


def _open(candidate: Candidate) -> ctypes.CDLL:
    if sys.platform == "win32":
        # The library loads those of ggml, CUDA and ROCm. Windows finds them only in folders that are added here: the
        # folder of the library itself, and the folders where the installers of CUDA and ROCm put theirs.
        homes = [Path(os.environ[name], "bin") for name in ("CUDA_PATH", "HIP_PATH") if os.environ.get(name)]
        for folder in (candidate.path.parent, *homes):
            if folder.is_dir():
                os.add_dll_directory(str(folder))
    if problem := _elf_problem(candidate.path):
        raise EngineFailed(f"{candidate} {problem}")
    try:
        return ctypes.CDLL(str(candidate.path))
    except OSError as error:
        raise EngineFailed(f"{candidate} cannot be loaded: {advice(str(error))}") from error


def _elf_problem(path: Path) -> str:
    """Return why an ELF file cannot be loaded, or "".

    For these files, the system's loader gives no useful message. For the library of another CPU, it says "no such
    file". For an incomplete file, it ends the process with SIGBUS.
    """
    try:
        with path.open("rb") as file, Path(sys.executable).open("rb") as program:
            head, own = file.read(64), program.read(64)
        size = path.stat().st_size
    except OSError:
        return ""
    if len(head) < 64 or head[:6] != _ELF64 or own[:6] != _ELF64:
        return ""
    if head[18:20] != own[18:20]:  # the field `e_machine`, the CPU architecture
        return f"is not a library for {sys.platform} on {cpu.machine()}"
    (sections,), (entry_size, entries) = struct.unpack_from("<Q", head, 40), struct.unpack_from("<HH", head, 58)
    if size < sections + entry_size * entries:  # the section headers are at the end of the file
        return "is cut off, as after an interrupted installation. Install it again"
    return ""


def _from_ggml(library: ctypes.CDLL, candidate: Candidate, name: str) -> Any:
    """Return a function of ggml, from `library` or from the library of ggml that `library` has loaded.

    On Windows, a search in `library` does not include the library of ggml, so that file is opened by its name.
    """
    try:
        return library[name]
    except AttributeError:
        beside = candidate.path.with_name("ggml-base.dll")
        try:
            return ctypes.CDLL(str(beside))[name]
        except (OSError, AttributeError):
            raise EngineFailed(f"{candidate} has no `{name}`. Use another build of llama.cpp") from None


def advice(reason: str) -> str:
    """Return a message with the loader's error `reason`, and, for a known error, what the user can do."""
    if match := re.search(r"version `(GLIBC\w*|CXXABI)_([\d.]+)' not found", reason):
        library = "C library" if match[1] == "GLIBC" else "C++ library"
        older = f"it needs {match[1]} {match[2]}, and the system's {library} is older"
        return f"{older}. {_COMPILE_HERE}"
    if "libgomp" in reason:
        return (
            "the system has no OpenMP library (libgomp.so.1). Install it: `apt install libgomp1` on Debian and Ubuntu, "
            "`dnf install libgomp` on Fedora"
        )
    if "symbol not found" in reason or "undefined symbol" in reason:
        return f"it does not match this system's libraries ({reason}). {_COMPILE_HERE}"
    if "libstdc++" in reason:
        return (
            "the system has no C++ library (libstdc++.so.6). Install it: `apt install libstdc++6` on Debian and "
            "Ubuntu, `dnf install libstdc++` on Fedora"
        )
    if missing := re.match(r"(?:Error loading shared library )?(lib[\w.+-]+)(?:: cannot open|: No such file)", reason):
        return f"it needs {missing[1]}, which is not installed ({reason})"
    if re.search(r"ELF class|ELF header|file too short|incompatible architecture|not a mach-o|WinError 193", reason):
        return f"it is not a library for {sys.platform} on {cpu.machine()}, or it is damaged ({reason})"
    if "ld-linux" in reason or "musl" in reason:
        absent = f"it was built for glibc, which this system does not have ({reason})"
        return f"{absent}. {_COMPILE_HERE}"
    return reason


def _version(library: ctypes.CDLL, candidate: Candidate) -> str:
    try:
        function = library["llama_version"]
    except AttributeError:
        raise EngineFailed(
            f"{candidate} is not a llama.cpp library, or is older than {_SUPPORTED}: it has no `llama_version`"
        ) from None
    function.restype = ctypes.c_char_p
    return str(function().decode("utf-8", "replace"))


def _layout(version: str, candidate: Candidate) -> capi.Layout:
    for layout in capi.LAYOUTS:
        if version.partition("-")[0] == layout.version:  # ignore a suffix, as in "0.6.0-dev"
            return layout
    raise EngineFailed(f"{candidate} is llama.cpp {version}, but this release supports {_SUPPORTED}")


def _returned(library: ctypes.CDLL, function: str, struct: Any) -> Any:
    class Roomy(ctypes.Structure):
        _fields_ = (("value", struct), ("room", ctypes.c_ubyte * _ROOM))

    return ctypes.CFUNCTYPE(Roomy)((function, library))().value


def _size(library: ctypes.CDLL, function: str, struct: Any) -> str:
    """Return how the bytes that `function` writes differ from the fields of `struct`, or "" if they agree."""
    written = [False] * _ROOM
    into = ctypes.CFUNCTYPE(None, ctypes.c_void_p)((function, library))
    for filler in (0x5A, 0xA5):  # a byte that the function writes can equal only one of these two
        buffer = (ctypes.c_ubyte * _ROOM)(*[filler] * _ROOM)
        into(ctypes.addressof(buffer))
        written = [before or byte != filler for before, byte in zip(written, buffer, strict=True)]
    for name, _type in struct._fields_:
        field = getattr(struct, name)
        if not all(written[field.offset : field.offset + field.size]):
            return f"`{name}` is not at offset {field.offset}"
    size = ctypes.sizeof(struct)
    return f"it is larger than {size} bytes" if any(written[size:]) else ""
