"""Split a GGUF file into parts. llama.cpp loads all parts when it opens the first one.

Some services that host git repositories accept files of about forty megabytes, but not of a hundred megabytes.
"""

from __future__ import annotations

import glob
from pathlib import Path

_WRITER_KEYS = ("GGUF.", "split.", "general.architecture")  # beginnings of keys that `GGUFWriter` itself adds


def split(source: Path, max_bytes: int) -> list[Path]:
    """Split `source` into parts of about `max_bytes` bytes in the same folder, and remove `source`.

    Return the parts in order. A file that fits into one part is not changed. Existing parts of `source` are removed
    first.
    """
    import gguf  # part of the `train` extra; the command line imports this module without it

    remove_parts(source)
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(source, architecture, split_max_size=max_bytes)
    for key, field in reader.fields.items():
        if not key.startswith(_WRITER_KEYS):
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), kind, inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    if len(writer.tensors) == 1:  # a single part has the name of `source`, so writing would overwrite the input
        return [source]
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    source.unlink()
    return _parts(source)


def remove_parts(source: Path) -> None:
    """Remove the parts of `source`, whether or not `source` exists."""
    for part in _parts(source):
        part.unlink()


def _parts(source: Path) -> list[Path]:
    return sorted(source.parent.glob(f"{glob.escape(source.stem)}-?????-of-?????.gguf"))
